"""Hostile bodies at every POST of all five services: each is refused, none ends a process or gets a 5xx."""

import gzip
import json
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.common.auth import HEADER
from tests.support.web import KEY, SERVICES, Service

JSON = {"Content-Type": "application/json"}
DEEP = 100_000

# What is sent, with which headers, and what it is refused with.
HOSTILE: dict[str, tuple[bytes, dict[str, str], int]] = {
    "nested_lists": (b"[" * DEEP, JSON, 413),
    "nested_lists_closed": (b"[" * DEEP + b"]" * DEEP, JSON, 413),
    "nested_objects": (b'{"a":' * DEEP + b"1" + b"}" * DEEP, JSON, 413),
    "nested_below_the_count": (b'{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}", JSON, 400),
    "nested_once_too_deep": (b'{"a":' * 33 + b"1" + b"}" * 33, JSON, 400),
    "nested_behind_a_string": (b'{"a":"\\"[[\\\\",' + b'"b":' + b"[" * 40 + b"]" * 40 + b"}", JSON, 400),
    "same_key_twice": (b'{"amount_wei":"1","amount_wei":"2"}', JSON, 400),
    "same_key_twice_deep": (b'{"movements":[{"a":{"b":1,"b":1}}]}', JSON, 400),
    "same_key_twice_escaped": (b'{"user_id":"a","user\\u005fid":"b"}', JSON, 400),
    "nan": (b'{"amount_wei":NaN}', JSON, 400),
    "infinity": (b'{"amount_wei":-Infinity}', JSON, 400),
    "float_beyond_all": (b'{"amount_wei":1e400}', JSON, 400),
    "exponent_beyond_all": (b'{"amount_wei":1e999999999999}', JSON, 400),
    "integer_of_5000_digits": (b'{"amount_wei":' + b"9" * 5_000 + b"}", JSON, 400),
    "integer_of_a_million_digits": (b'{"amount_wei":' + b"9" * 1_000_000 + b"}", JSON, 400),
    "bytes_that_are_no_text": (b'{"user_id":"\xff\xfe"}', JSON, 400),
    "surrogate_in_bytes": (b'{"user_id":"\xed\xa0\x80"}', JSON, 400),
    "utf16": ('{"user_id":"a"}'.encode("utf-16"), JSON, 400),
    "byte_order_mark": (b"\xef\xbb\xbf{}", JSON, 400),
    "nul_byte": (b'{"user_id":"a\x00"}', JSON, 400),
    "nul_escaped": (b'{"user_id":"a\\u0000"}', JSON, 422),
    "lone_surrogate": (b'{"user_id":"a\\ud800"}', JSON, 422),
    "lone_surrogate_in_a_key": (b'{"\\udfff":"a"}', JSON, 422),
    "unknown_field": (b'{"no_such_field":1}', JSON, 422),
    "hundred_unknown_long_fields": (json.dumps({f"{n}" + "x" * 9_000: n for n in range(300)}).encode(), JSON, 422),
    "list": (b"[]", JSON, 400),
    "text": (b'"x"', JSON, 400),
    "null": (b"null", JSON, 400),
    "blank": (b" ", JSON, 400),
    "cut_off": (b'{"user_id":', JSON, 400),
    "two_objects": (b"{}{}", JSON, 400),
    "comment": (b"{}//", JSON, 400),
    "form": (b"user_id=a&amount_wei=1", {"Content-Type": "application/x-www-form-urlencoded"}, 400),
    "json_that_says_it_is_a_form": (b'{"a":1}', {"Content-Type": "application/x-www-form-urlencoded"}, 400),
    "json_without_a_type": (b'{"a":1}', {"Content-Type": ""}, 400),
    "multipart": (b"--x\r\n\r\n--x--", {"Content-Type": "multipart/form-data; boundary=x"}, 400),
    "gzip": (gzip.compress(b"{}"), {**JSON, "Content-Encoding": "gzip"}, 415),
    "gzip_in_name_only": (b"{}", {**JSON, "Content-Encoding": "gzip"}, 415),
    "too_many_numbers": (b'{"ids":[' + b"1," * 150_000 + b"1]}", JSON, 413),
    "too_many_objects": (b'{"movements":[' + b"{}," * 20_000 + b"{}]}", JSON, 413),
    "eight_megabytes_of_keys": (
        b"{" + b",".join(b'"%d":1' % n for n in range(600_000)) + b"}", JSON, 413,
    ),
    "eight_megabytes_of_one_key": (b'{"' + b"k" * 8_000_000 + b'":1}', JSON, 422),
    "eight_megabytes_of_backslashes": (b'{"a":"' + b"\\\\" * 3_990_000 + b'"}', JSON, 422),
    "above_the_limit": (b'{"a":"' + b"x" * 8_388_608 + b'"}', JSON, 413),
}  # fmt: skip


# The same reader is before every endpoint, and eight megabytes take it a while.
LARGE = {case for case, (body, _, _) in HOSTILE.items() if len(body) > 2_000_000}


def send(service: Service, path: str, body: bytes, headers: dict[str, str], key: str = KEY) -> requests.Response:
    return service.session.post(service.url + path, data=body, headers={HEADER: key, **headers}, timeout=60)


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("case", [pytest.param(case, marks=[pytest.mark.prove] * (case in LARGE)) for case in HOSTILE])
def test_body__hostile__refused_at_every_post_and_the_process_lives(
    case: str, name: str, services: dict[str, Service]
) -> None:
    assert_refused(services[name], case, [path for path, _ in services[name].operations("POST")])


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("case", sorted(LARGE))
def test_body__hostile_and_large__refused_at_the_first_post_and_the_process_lives(
    case: str, name: str, services: dict[str, Service]
) -> None:
    assert_refused(services[name], case, [services[name].operations("POST")[0][0]])


def assert_refused(service: Service, case: str, paths: list[str]) -> None:
    body, headers, status = HOSTILE[case]
    for path in paths:
        answer = send(service, path, body, headers)
        assert answer.status_code == status, (path, answer.status_code, answer.text[:500])
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert len(answer.content) < 100_000
    service.assert_serves()


@pytest.mark.parametrize("name", SERVICES)
def test_body__hostile_and_without_a_key__401_before_anybody_looks(name: str, services: dict[str, Service]) -> None:
    for case, (body, headers, _) in HOSTILE.items():
        if len(body) < 8_388_608:  # beyond it the web server speaks first
            for key in ("", "wrong", "\xff"):
                answer = send(services[name], services[name].operations("POST")[0][0], body, headers, key)
                # Sixty wrong keys, and the next ones of the minute are told to wait; no key is none.
                assert answer.status_code in ((401, 429) if key else (401,)), (case, answer.text)


@pytest.mark.parametrize("name", SERVICES)
def test_body__at_an_address_that_takes_none__refused(name: str, services: dict[str, Service]) -> None:
    """Whoever sends one means something by it; where it takes none, an empty object is none."""
    service = services[name]
    headers = {HEADER: KEY, **JSON}
    for path, _ in service.operations("GET"):
        refused = requests.get(service.url + path, data=b'{"a":1}', headers=headers, timeout=60)
        assert (refused.status_code, refused.json()["errors"]) == (422, {"a": ["Unknown field."]}), path
        deep = requests.get(service.url + path, data=b"[" * DEEP, headers=headers, timeout=60)
        assert deep.status_code == 413, path
        assert requests.get(service.url + path, data=b"{}", headers=headers, timeout=60).status_code < 500
    for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"):
        path = service.operations("GET")[0][0]
        answer = requests.request(method, service.url + path, data=b"[" * DEEP, headers=headers, timeout=60)
        assert answer.status_code < 500, method
    service.assert_serves()


def test_body__as_deep_as_is_allowed__read(ledger: Service) -> None:
    answer = send(ledger, "/v1/movements", b'{"a":' * 32 + b"1" + b"}" * 32, JSON)
    assert (answer.status_code, answer.json()["errors"]["a"]) == (422, ["Unknown field."])


def test_body__key_twice__nothing_is_booked(ledger: Service) -> None:
    body = b'{"message_id":"twice","kind":"deposit","user_id":"bob","amount_wei":"1","amount_wei":"1000000"}'
    assert send(ledger, "/v1/movements", body, JSON).json()["code"] == "invalid_json"
    assert ledger.get("/v1/movements/twice").status_code == 404
    assert ledger.get("/v1/balances/bob").json()["available_wei"] == "0"


def test_body__largest_batch_there_is__taken(ledger: Service) -> None:
    """The limits are above what is meant to be sent, brackets and quotes in its texts included."""
    movements = [
        {"message_id": f"largest:{number}", "kind": "deposit", "pool_id": "world", "user_id": f"u|{number % 7}",
         "amount_wei": "115792089237316195423570985008687907853", "reference": '[[{{"\\' * 5}
        for number in range(10_000)
    ]  # fmt: skip
    answer = ledger.post("/v1/movements/batch", {"movements": movements})
    assert (answer.status_code, answer.json()["posted"]) == (201, 10_000)
    assert ledger.get("/v1/movements/largest:9").json()["reference"] == '[[{{"\\' * 5


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
fields = st.dictionaries(
    st.sampled_from(
        ["message_id", "user_id", "pool_id", "kind", "amount_wei", "reference", "movements", "deltas", "ids", "items",
         "withdrawal_ids", "to", "data", "value_wei", "gas_limit", "deadline", "from", "purpose", "block", "rewards",
         "new_rewards_wei", "source", "staked_delta_wei"]
    ),
    json_values | st.sampled_from(["0x", "1", "-1", "max", "0001-01-01T00:00:00+14:00", "..", "0x" + "0" * 40, 2**70]),
    max_size=7,
)  # fmt: skip


@pytest.mark.parametrize("name", SERVICES)
@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_body__whatever_it_is__never_a_fault_of_ours(name: str, services: dict[str, Service], data: Any) -> None:
    service = services[name]
    path = data.draw(st.sampled_from([path for path, _ in service.operations("POST")]))
    raw = data.draw(st.binary(max_size=200) | st.builds(lambda value: json.dumps(value).encode(), fields | json_values))
    answer = send(service, path, raw, JSON)
    assert answer.status_code < 500, (path, raw, answer.text)
    assert service.process.poll() is None
