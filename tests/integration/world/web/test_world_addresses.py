"""Ids, cursors, queries and headers that nobody should send, at every endpoint of all five services."""

import json
import socket
from typing import Any
from urllib.parse import quote

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.clients.ledger import LedgerClient
from apps.clients.pool import PoolClient
from apps.clients.relayer import RelayerClient
from apps.clients.rewards import RewardsClient, stake_delta
from apps.common.auth import HEADER
from tests.support.raw import raw
from tests.support.slow_client import converse
from tests.support.web import KEY, SERVICES, Service

ODD_USER = "a.b_c:d|e+f=g@h-i"
ODD_MESSAGE = "a.b_c:d@e-f:..:."
ODD_POOL = "a.b_c-d..e"
NOT_CURSORS = ["no cursor", "", "-1", "01", "1 ", "+1", "1_0", "٣", "0x1", "9" * 19, str(2**64), "1:", ":1", "1:x", "1:2:3",
               "-1:0", "1:-2", "99999999999999999:1", "1:99999999999", "@custody", "..", "a b", "\u00e9", "A" * 300,
               "0190b3c0-0000-7000-8000-00000000000", "0190B3C0-0000-7000-8000-000000000000", "%", "null", "None"]  # fmt: skip
# Names of users are cursors of lists that are in the order of users.
ALSO_USERS = {"1_0", "01", "-1", "0x1", "9" * 19, str(2**64), "1:", ":1", "1:x", "1:2:3", "-1:0", "1:-2", "+1",
              "99999999999999999:1", "1:99999999999", "0190b3c0-0000-7000-8000-00000000000",
              "0190B3C0-0000-7000-8000-000000000000", "null", "None"}  # fmt: skip
USER_LISTS = {"/v1/balances", "/v1/positions", "/v1/users"}
# What a query must name besides, so that it is refused for one field alone.
NEEDED = {"from": "2026-11-01T00:00:00Z"}
EXTREME_TIMES = ["0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-14:00", "0000-01-01T00:00:00Z",
                 "10000-01-01T00:00:00Z", "2026-02-30T00:00:00Z", "2026-01-01T00:00:00", "2026-01-01T00:00:00+99:99", "now",
                 "infinity", "-infinity", "epoch", "", "2026-01-01T00:00:60Z"]  # fmt: skip
EXTREME_NUMBERS = [str(2**63), str(2**70), str(-(2**63)), "9" * 400, "1e3", "1.0", " 1", "1_0", "٣", "NaN", "inf", "",
                   "0x10"]  # fmt: skip


def raw_get(service: Service, target: str, *headers: bytes) -> tuple[int, dict[str, Any]]:
    """GET exactly this target, which a client library would tidy up first."""
    lines = [f"GET {target} HTTP/1.1".encode(), b"Host: x", f"{HEADER}: {KEY}".encode(), b"Connection: close", *headers]
    head, _, body = converse(service.port, b"\r\n".join(lines) + b"\r\n\r\n").partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), json.loads(body) if b"application/json" in head or b"problem+json" in head else {}


def needed(query: frozenset[str]) -> dict[str, str]:
    return {name: value for name, value in NEEDED.items() if name in query}


def refused_field(answer: requests.Response) -> set[str]:
    assert answer.status_code == 422, (answer.url, answer.status_code, answer.text)
    assert answer.json()["code"] == "invalid_input"
    return set(answer.json()["errors"])


@pytest.mark.parametrize("name", SERVICES)
def test_list__cursor_that_no_answer_gave__422_names_it(name: str, services: dict[str, Service]) -> None:
    lists = [(path, query) for path, query in services[name].operations("GET") if "after" in query]
    assert lists
    for path, query in lists:
        for cursor in NOT_CURSORS:
            if path in USER_LISTS and cursor in ALSO_USERS:
                continue
            answer = services[name].get(path, params={**needed(query), "after": cursor})
            assert refused_field(answer) == {"after"}, (path, cursor)


def test_list__cursor_of_a_pools_requests__422_as_was_seen(services: dict[str, Service]) -> None:
    assert refused_field(services["pool"].get("/v1/requests", params={"after": "no cursor"})) == {"after"}


@pytest.mark.parametrize("name", SERVICES)
def test_query__unknown_or_doubled__422_names_it(name: str, services: dict[str, Service]) -> None:
    service = services[name]
    for method in ("GET", "POST"):
        for path, query in service.operations(method):
            call = service.get if method == "GET" else lambda path, **options: service.post(path, {}, **options)
            assert "lmit" in refused_field(call(path, params={"lmit": "1"})), path
            for known in query:
                assert known in refused_field(call(path, params=[(known, "1"), (known, "1")])), (path, known)
            many = [(f"p{number}", "x" * 10) for number in range(1_500)]
            assert len(refused_field(call(path, params=many))) <= 100, path
            doubled = call(path, params=[("a", "1"), ("a", "2"), ("after", "x"), ("after", "y")])
            assert {"a", "after"} <= refused_field(doubled), path


@pytest.mark.parametrize("name", SERVICES)
def test_query__extreme_times_and_numbers__422_names_it_or_nothing_is_there(
    name: str, services: dict[str, Service]
) -> None:
    service = services[name]
    for path, query in service.operations("GET"):
        for field in query & {"at", "created_after"}:
            for moment in EXTREME_TIMES:
                assert refused_field(service.get(path, params={field: moment})) == {field}, (path, field, moment)
            for moment in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2026-01-01T00:00:00+14:00"):
                assert service.get(path, params={field: moment}).status_code == 200, (path, field, moment)
        for field in query & {"from", "to"}:
            for moment in EXTREME_TIMES:
                answer = service.get(path, params={**needed(query), field: moment})
                assert refused_field(answer) == {field}, (path, field, moment)
        for field in query & {"limit", "block", "after_block", "from_block", "to_block", "wait"}:
            for number in EXTREME_NUMBERS:
                if field == "wait" and number in {"1.0", " 1", "1_0", "٣"}:
                    continue  # a number of seconds, a fraction allowed
                answer = service.get(path, params={**needed(query), field: number})
                assert refused_field(answer) == {field}, (path, field, number)
    for path in {
        "ledger": ["/v1/movements/"], "rewards": ["/v1/pools/", "/v1/positions/"], "protocols": ["/v1/lido/receipts/"],
        "pool": ["/v1/requests/", "/v1/batches/"], "relayer": ["/v1/transactions/"],
    }[name]:  # fmt: skip
        for number in (
            str(2**63),
            str(2**70),
            "9" * 4_000,
            "-1",
            "%F0%9F%98%80",
            "%ff%fe",
            "%",
            "%zz",
            "a%2fb",
            "%2e%2e",
            "%00",
        ):
            status, _ = raw_get(service, path + number)
            assert status in {200, 404, 422}, (path, number[:20], status)


def test_time__extreme_deadline_of_a_message__refused(services: dict[str, Service]) -> None:
    body = {"to": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8", "data": "0x", "value_wei": "1"}
    for number, moment in enumerate(EXTREME_TIMES):
        answer = services["relayer"].post("/v1/transactions", {**body, "message_id": f"t:{number}", "deadline": moment})
        assert refused_field(answer) == {"deadline"}, moment
    for number, moment in enumerate(("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z")):
        answer = services["relayer"].post("/v1/transactions", {**body, "message_id": f"u:{number}", "deadline": moment})
        assert (answer.status_code, answer.json()["deadline"][:4]) == (202, moment[:4])


@pytest.mark.parametrize("dots", [".", ".."])
def test_id__that_no_url_can_carry__refused_at_every_entry(dots: str, services: dict[str, Service]) -> None:
    ledger, rewards, pool, protocols, relayer = (
        services[name] for name in ("ledger", "rewards", "pool", "protocols", "relayer")
    )
    movement = {"message_id": "dots:1", "kind": "deposit", "user_id": "ann", "amount_wei": "1"}
    delta = {"message_id": "dots:1", "user_id": "ann", "staked_delta_wei": "1", "exiting_delta_wei": "0"}
    sent = {"message_id": "dots:1", "to": "0x" + "1" * 40, "data": "0x", "value_wei": "1"}
    bodies: list[tuple[Service, str, dict[str, Any], str]] = []
    for field in ("message_id", "user_id", "pool_id"):
        odd = {field: dots}
        bodies += [
            (ledger, "/v1/movements", {**movement, **odd}, field),
            (ledger, "/v1/movements/batch", {"movements": [{**movement, **odd}]}, f"movements.0.{field}"),
            (rewards, "/v1/claims", {"message_id": "dots:1", "pool_id": "p", "user_id": "ann", **odd}, field),
            (pool, "/v1/stakes", {"message_id": "dots:1", "user_id": "ann", "amount_wei": "1", **odd}, field),
            (pool, "/v1/unstakes", {"message_id": "dots:1", "user_id": "ann", "amount_wei": "100", **odd}, field),
            (pool, "/v1/reward-claims", {"message_id": "dots:1", "user_id": "ann", **odd}, field),
        ]
    for field in ("message_id", "user_id"):
        body = {"pool_id": "p", "deltas": [{**delta, field: dots}]}
        bodies.append((rewards, "/v1/stake-deltas", body, f"deltas.0.{field}"))
    for field in ("message_id", "pool_id"):
        odd = {field: dots}
        accrual = {"message_id": "dots:1", "pool_id": "p", "new_rewards_wei": "1", "source": "s", **odd}
        bodies.append((rewards, "/v1/accruals", accrual, field))
        release = {"message_id": "dots:1", "pool_id": "p", "amount_wei": "1", **odd}
        bodies.append((rewards, "/v1/parked/release", release, field))
    bodies += [
        (ledger, "/v1/audits", {"pool_id": dots}, "pool_id"),
        (rewards, "/v1/audits", {"pool_id": dots}, "pool_id"),
        (protocols, "/v1/reconciliations", {"message_id": dots}, "message_id"),
        (relayer, "/v1/transactions", {**sent, "message_id": dots}, "message_id"),
    ]
    for service, path, body, field in bodies:
        assert refused_field(service.post(path, body)) == {field}, (path, body)
    claim = {"user_id": "ann"}
    answer = pool.post("/v1/reward-claims", claim, headers={"Idempotency-Key": dots})
    assert refused_field(answer) == {"Idempotency-Key"}
    for name in SERVICES:
        for path, query in services[name].operations("GET"):
            for field in query & {"user_id", "pool_id"}:
                assert field in refused_field(services[name].get(path, params={field: dots})), (path, field)


def test_id__dots_in_a_path__never_a_fault_of_ours(services: dict[str, Service]) -> None:
    for target in ("%2e%2e", "%2E", "..", ".", "%2e%2e%2f..", "..%2f..", "%252e%252e"):
        for name, path in (
            ("pool", "/v1/users/{}/portfolio"), ("pool", "/v1/requests/{}"), ("pool", "/v1/requests/{}/cancel"),
            ("ledger", "/v1/balances/{}"), ("ledger", "/v1/movements/{}"), ("rewards", "/v1/positions/{}"),
            ("rewards", "/v1/pools/{}"), ("relayer", "/v1/transactions/{}"), ("relayer", "/v1/transactions/{}/explain"),
            ("relayer", "/v1/signers/{}/pause"), ("protocols", "/v1/lido/receipts/{}"), ("ledger", "/docs/assets/{}"),
        ):  # fmt: skip
            status, _ = raw_get(services[name], path.format(target))
            assert status in {401, 404, 405, 422}, (path, target, status)
    status, body = raw_get(services["pool"], "/v1/users/%2e%2e/portfolio")
    assert (status, set(body["errors"])) == (422, {"user_id"})


def test_id__of_every_allowed_character__arrives_through_each_client(services: dict[str, Service]) -> None:
    ledger, rewards = LedgerClient(services["ledger"].url, KEY), RewardsClient(services["rewards"].url, KEY)
    for pool_id in (ODD_POOL, "...", "eth_native"):
        message = f"{ODD_MESSAGE}:{pool_id}"
        raw(ledger).post_movement(message, "deposit", pool_id, ODD_USER, 7)
        found = raw(ledger).movement(message)
        assert found is not None
        assert (found["user_id"], found["pool_id"]) == (ODD_USER, pool_id)
        assert raw(ledger).balance(pool_id, ODD_USER)["available_wei"] == "7"
        rewards.stake_deltas(pool_id, [stake_delta(message, ODD_USER, 9)])
        assert raw(rewards).position(pool_id, ODD_USER)["staked_wei"] == "9"
        assert raw(rewards).pool(pool_id)["weight_wei"] == "9"
    for user in ("...", "..a", "-", "=", "+", "|", ":", "a@"):
        raw(ledger).post_movement(f"odd:{user.encode().hex()}", "deposit", "eth_native", user, 3)
        assert raw(ledger).balance("eth_native", user)["available_wei"] == "3"
        listed = raw(ledger).balances("eth_native", after=None, limit=200)["items"]
        assert user in {item["user_id"] for item in listed}
        ledger.balances("eth_native", after=user, limit=1)
    portfolio = PoolClient(services["pool"].url, KEY).portfolio(ODD_USER)
    assert portfolio["balance"]["available_wei"] == "7"
    relayer = RelayerClient(services["relayer"].url, KEY)
    relayer.post("/v1/transactions", {"message_id": ODD_MESSAGE, "to": "0x" + "1" * 40, "data": "0x", "value_wei": "1"})
    sent = raw(relayer).transaction(ODD_MESSAGE)
    assert sent is not None
    assert sent["message_id"] == ODD_MESSAGE


HEADERS = [
    b"X-Request-Id: " + b"a" * 20_000, b"X-Request-Id: \xff\xfe", b"X-Request-Id:", b"X-Request-Id: a\r\nX-Request-Id: b",
    b"Idempotency-Key: \xff\xfe", b"Idempotency-Key: " + b"k" * 20_000, b"Idempotency-Key:",
    b"Cookie: " + b"a=b; " * 4_000, b"Cookie: \xff=\xfe; ;;=;", b"Accept: \xff", b"Accept: " + b"*/*;q=," * 3_000,
    b"Host: \xff", b"Host: a b", b"Host: [::", b"Host: a:b:c@d/", b"Content-Type: \xff", b"Content-Type: ;;;=;charset=\xfe",
    b"Content-Type: application/json; charset=no-such", b"Accept-Language: " + b"x," * 5_000, b"Range: bytes=9999999999999-",
    b"Range: bytes=a-b", b"If-None-Match: \"\xff", b"If-Modified-Since: yesterday", b"Authorization: Basic \xff",
    b"Authorization: " + b"x" * 20_000, b"Forwarded: for=\"", b"X-Forwarded-For: " + b"1," * 5_000, b"Expect: \xff",
    b"Expect: something", b"Upgrade: h2c", b"Accept-Encoding: \xff;q=a", b"Origin: \xff",
    b"Content-Encoding: \xff", b"X-HTTP-Method-Override: DELETE", b"Max-Forwards: -1", b"Date: \xff", b"TE: \xff",
]  # fmt: skip


@pytest.mark.parametrize("name", SERVICES)
def test_header__whatever_it_is__never_a_fault_of_ours(name: str, services: dict[str, Service]) -> None:
    service = services[name]
    for header in HEADERS:
        for path in (
            service.status_path,
            "/docs/assets/swagger-ui.css",
            service.operations("GET")[0][0],
            "/v1/nothing",
        ):
            status, _ = raw_get(service, path, header)
            assert status < 500, (path, header[:60], status)
    service.assert_serves()


def test_key__non_latin_or_doubled__401(ledger: Service) -> None:
    for key in (b"\xff\xfe", b"", b" ", KEY.encode() + b"\xff", KEY.encode() + b"\r\n" + HEADER.encode() + b": wrong"):
        words = (
            b"GET /v1/totals HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + HEADER.encode() + b": " + key + b"\r\n\r\n"
        )
        assert converse(ledger.port, words).startswith(b"HTTP/1.1 401"), key


def test_metrics__methods_of_any_name__are_one_series(ledger: Service) -> None:
    """A stranger needs no key to call with ten thousand methods; each would be kept for ever."""
    with socket.create_connection(("127.0.0.1", ledger.port), timeout=60) as connection:
        for number in range(50):
            connection.sendall(f"NONSENSE{number} /status/ledger HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            heard = b""
            while b"\r\n\r\n" not in heard or b"method_not_allowed" not in heard:
                heard += connection.recv(65_536)
    metrics = ledger.get("/metrics").text
    assert "NONSENSE" not in metrics
    assert 'method="other"' in metrics


@pytest.mark.parametrize("name", SERVICES)
@given(data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_address__whatever_it_is__never_a_fault_of_ours(name: str, services: dict[str, Service], data: Any) -> None:
    service = services[name]
    path, query = data.draw(st.sampled_from(service.operations("GET")))
    piece = st.text(max_size=12) | st.sampled_from(
        [
            *EXTREME_TIMES,
            *EXTREME_NUMBERS,
            *NOT_CURSORS,
            "eth_native",
            "stake",
            "claim",
            "deposit",
            "queued",
            "1",
            "200",
            ODD_USER,
        ]
    )
    values = data.draw(st.dictionaries(st.sampled_from([*sorted(query), "x"]), piece, max_size=4))
    target = path.replace("nobody", quote(data.draw(piece), safe="")) + "?"
    target += "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in values.items())
    status, body = raw_get(service, target + data.draw(st.sampled_from(["", "%", "%ff", "&", "&&=;", "#x", "?"])))
    assert status < 500 or body.get("code") == "upstream_unavailable", (target, status, body)
