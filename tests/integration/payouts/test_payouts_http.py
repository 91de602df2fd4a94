"""The endpoints of payouts and deposits over HTTP: what they take, what they answer, and one effect for one name."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask.testing import FlaskClient

from apps.common.auth import HEADER
from apps.common.wei import ETHER
from apps.pool import create_app
from tests.support.flows import Flows
from tests.support.payouts import payee
from tests.support.protocols import KEY

Post = Callable[..., Any]
HASH = "0x" + "ab" * 32


@pytest.fixture
def client(flows: Flows) -> FlaskClient:
    return create_app(flows.context.settings).test_client()


@pytest.fixture
def post(client: FlaskClient) -> Post:
    def send(path: str, body: dict[str, Any], **headers: str) -> Any:
        return client.post(path, json=body, headers={HEADER: KEY, **headers})

    return send


def test_payout__over_http__201_then_a_replay_with_its_header(post: Post, client: FlaskClient, user: str) -> None:
    body = {"user_id": user, "amount_wei": str(ETHER), "to": payee(user).lower()}
    first = post("/v1/payouts", body, **{"Idempotency-Key": f"http:{user}"})
    made = first.get_json()
    assert (first.status_code, made["kind"], made["payout"]["to"]) == (201, "payout", payee(user))
    assert first.headers["Location"] == f"/v1/requests/{made['id']}"
    again = post("/v1/payouts", {**body, "message_id": f"http:{user}"})
    assert (again.status_code, again.headers["Idempotent-Replay"], again.get_json()["id"]) == (200, "true", made["id"])
    cancelled = client.post(f"/v1/requests/{made['id']}/cancel", headers={HEADER: KEY})
    assert cancelled.get_json()["status"] == "cancelled"


def test_addresses__over_http__added_listed_and_removed(post: Post, client: FlaskClient, user: str) -> None:
    path = f"/v1/users/{user}/payout-addresses"
    body = {"message_id": f"a:{user}", "address": payee("other"), "label": "cold wallet"}
    first, again = post(path, body), post(path, body)
    assert (first.status_code, again.status_code, again.headers["Idempotent-Replay"]) == (201, 200, "true")
    assert first.get_json() == again.get_json()
    assert post(path, {**body, "label": "other"}).get_json()["code"] == "message_id_reused"
    removed = client.post(f"{path}/{first.get_json()['id']}/remove", headers={HEADER: KEY}).get_json()
    assert removed["removed_at"] is not None
    items = client.get(path, headers={HEADER: KEY}).get_json()["items"]
    assert [(item["label"], item["removed_at"] is None) for item in items] == [("cold wallet", False), (None, True)]
    assert client.post(f"{path}/{HASH}/remove", headers={HEADER: KEY}).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/v1/payouts", {"to": "0x" + "F" * 39 + "e"}, "invalid_input"),
        ("/v1/payouts", {"amount_wei": "0"}, "invalid_input"),
        ("/v1/payouts", {"amount_wei": 5}, "invalid_input"),
        ("/v1/payouts", {"colour": "red"}, "invalid_input"),
        ("/v1/payouts", {"amount_wei": str(5_000_000 * ETHER)}, "invalid_input"),
        ("/v1/deposits", {"tx_hash": HASH[:-1]}, "invalid_input"),
        ("/v1/deposits", {"tx_hash": None}, "invalid_input"),
        ("/v1/payouts/nobody/approve", {"by": "olga"}, "not_found"),
        ("/v1/payouts/nobody/release", {"message_id": "m", "by": "olga", "why": "?"}, "not_found"),
        ("/v1/payouts/nobody/paid", {"message_id": "m", "by": "olga", "why": "?", "tx_hash": HASH}, "not_found"),
        ("/v1/users/@custody/payout-addresses", {"message_id": "m", "address": HASH[:42]}, "invalid_input"),
    ],
)
def test_bad_input__of_every_endpoint__typed_and_without_effect(
    post: Post, user: str, path: str, body: dict[str, Any], code: str
) -> None:
    right: dict[str, dict[str, Any]] = {
        "/v1/payouts": {"message_id": "bad", "user_id": user, "amount_wei": "1", "to": payee(user)},
        "/v1/deposits": {"message_id": "bad", "user_id": user, "tx_hash": HASH},
    }
    answer = post(path, {**right.get(path, {}), **body})
    assert (answer.content_type, answer.get_json()["code"]) == ("application/problem+json", code)
    assert answer.status_code in {404, 422}


def test_payout__twenty_callers_with_one_name__one_effect_and_one_answer(flows: Flows, post: Post, user: str) -> None:
    body = {"message_id": f"one:{user}", "user_id": user, "amount_wei": str(ETHER), "to": payee(user)}
    with ThreadPoolExecutor(20) as callers:
        answers = list(callers.map(lambda _: post("/v1/payouts", body), range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert len({answer.get_json()["id"] for answer in answers}) == 1
    flows.settle()
    assert flows.balance(user)["available_wei"] == str(29 * ETHER)
    assert flows.desk.balance(payee(user)) == ETHER


def test_endpoints__without_the_key__401(client: FlaskClient) -> None:
    for path in ("/v1/payouts", "/v1/deposits", "/v1/users/ann/payout-addresses"):
        assert client.post(path, json={}).status_code == 401
    assert client.get("/v1/deposits/unidentified").status_code == 401


def test_unidentified__over_http__amounts_as_text_and_unknown_cursors_refused(client: FlaskClient, user: str) -> None:
    answer = client.get("/v1/deposits/unidentified?limit=1", headers={HEADER: KEY})
    (item,) = answer.get_json()["items"]
    assert set(item) == {"block_number", "block_hash", "tx_hash", "from", "amount_wei"}
    assert int(item["amount_wei"]) > 0
    assert client.get("/v1/deposits/unidentified?after=x", headers={HEADER: KEY}).status_code == 422
