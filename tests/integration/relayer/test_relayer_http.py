"""The HTTP face: replays, reuses, cancels, lists, waiting, and who is served."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from apps.common.auth import HEADER
from apps.common.wei import ETHER
from tests.support.relayer import CUSTODY, OPERATOR, STRANGER, House, Node, make_house

KEYS_OF_A_TRANSACTION = [
    "message_id", "purpose", "status", "reason", "from", "to", "data", "value_wei", "gas_limit", "deadline", "nonce",
    "tx_hash", "block_number", "block_hash", "confirmations", "observed_block", "gas_cost_wei", "revert", "passing",
    "attempts", "created_at", "updated_at",
]  # fmt: skip


def test_post__first_time__accepted_with_every_key(house: House) -> None:
    answer = house.post("m:1")
    assert answer.status_code == 202
    assert list(answer.get_json()) == KEYS_OF_A_TRANSACTION
    assert answer.get_json()["status"] == "queued"
    assert answer.get_json()["from"] == OPERATOR


def test_post__replay__resource_as_it_stands_now(house: House) -> None:
    house.post("m:1")
    house.pump()
    answer = house.post("m:1")
    assert answer.status_code == 200
    assert answer.headers["Idempotent-Replay"] == "true"
    assert answer.get_json()["status"] == "broadcast"
    assert len(answer.get_json()["attempts"]) == 1


def test_post__other_body__reused_naming_the_fields(house: House) -> None:
    house.post("m:1")
    answer = house.post("m:1", value_wei="5", to=OPERATOR)
    assert answer.status_code == 422
    assert answer.get_json()["code"] == "message_id_reused"
    assert sorted(answer.get_json()["errors"]) == ["to", "value_wei"]
    assert house.message("m:1")["value_wei"] == str(ETHER)


def test_post__same_body_in_other_letters__replay(house: House) -> None:
    house.post("m:1")
    assert house.post("m:1", to=CUSTODY.lower()).status_code == 200


def test_post__twins_at_once__one_message_and_one_execution(house: House) -> None:
    with ThreadPoolExecutor(8) as pool:
        client = house.client.application.test_client
        body = {"message_id": "m:1", "to": CUSTODY, "data": "0x", "value_wei": "7", "gas_limit": 21_000}
        codes = list(pool.map(lambda _: client().post("/v1/transactions", json=body).status_code, range(8)))
    assert sorted(codes) == [200] * 7 + [202]
    assert house.run("m:1")["status"] == "confirmed"
    assert len(house.node.transactions_from(OPERATOR)) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gas_limit", 16_777_217),
        ("gas_limit", "21000"),
        ("to", "0x1234"),
        ("to", OPERATOR[:-1] + "7"),
        ("to", "0xF39Fd6e51aad88F6F4ce6aB8827279cffFb92266"),
        ("data", "0x123"),
        ("value_wei", 5),
        ("value_wei", "0x5"),
        ("message_id", "a b"),
        ("purpose", "x\n"),
        ("unknown", 1),
    ],
)
def test_post__bad_field__refused_by_name(house: House, field: str, value: object) -> None:
    answer = house.post(**{"message_id": "m:1", field: value})  # type: ignore[arg-type]
    assert answer.status_code == 422
    assert list(answer.get_json()["errors"]) == [field]


def test_cancel__queued__cancelled_without_nonce(house: House) -> None:
    house.post("m:1")
    for _ in range(2):
        answer = house.client.post("/v1/transactions/m:1/cancel")
        assert answer.status_code == 200
        assert (answer.get_json()["status"], answer.get_json()["nonce"]) == ("cancelled", None)
    house.pump()
    assert house.message("m:1")["status"] == "cancelled"
    assert house.node.transactions_from(OPERATOR) == []


def test_ops__unknown_message_or_signer__404(house: House) -> None:
    for path in ("transactions/nobody/cancel", "transactions/nobody/speed-up", f"signers/{STRANGER}/pause"):
        assert house.client.post(f"/v1/{path}").status_code == 404
    for path in ("events", "sends", "explain"):
        assert house.client.get(f"/v1/transactions/nobody/{path}").status_code == 404


def signer(house: House, action: str) -> str:
    answer = house.client.post(f"/v1/signers/{OPERATOR}/{action}")
    return str(answer.get_json()["state"] if answer.status_code == 200 else answer.get_json()["code"])


def test_signer__paused__neither_signs_nor_sends_until_resumed(house: House) -> None:
    house.post("m:1")
    house.pump()
    assert signer(house, "pause") == "paused"
    house.node.rpc("anvil_dropTransaction", house.message("m:1")["tx_hash"])
    house.post("m:2", value_wei="5")
    house.mine_and_pump(3)
    assert house.message("m:2")["reason"]["code"] == "signer_not_active"
    assert house.node.transactions_from(OPERATOR) == []
    assert signer(house, "resume") == "active"
    assert house.run("m:2")["status"] == "confirmed"
    assert house.message("m:1")["status"] == "confirmed"


def test_signer__draining__ends_what_it_has_and_begins_nothing(house: House) -> None:
    house.post("m:1")
    house.pump()
    assert signer(house, "drain") == "draining"
    house.node.rpc("anvil_dropTransaction", house.message("m:1")["tx_hash"])
    house.post("m:2", value_wei="5")
    assert house.run("m:1")["status"] == "confirmed"
    assert house.message("m:2")["status"] == "queued"


def test_signer__quarantined__not_resumed_before_its_release(house: House) -> None:
    house.pump()
    house.node.rpc("anvil_setNonce", OPERATOR, "0x5")
    house.node.mine()
    house.doubt_and_stop()
    assert signer(house, "resume") == "signer_quarantined"


def reasons(house: House, message_id: str = "m:1") -> list[str]:
    answer = house.client.get(f"/v1/transactions/{message_id}/explain").get_json()
    return [item["code"] for item in answer["reasons"]]


def test_explain__along_the_way__says_what_it_waits_for(house: House) -> None:
    house.post("m:1")
    house.post("m:2", value_wei="5")
    assert reasons(house) == ["signer_not_active"]  # before the first tick nothing is known of the key
    house.pump()
    assert reasons(house) == ["waits_for_block"]
    assert reasons(house, "m:2") == ["behind_others"]
    house.node.base_fee(10**11)
    assert reasons(house) == ["below_base_fee"]
    house.client.post("/v1/transactions/m:1/cancel")
    assert reasons(house)[0] == "cancel_requested"
    found = house.client.get("/v1/transactions/m:1/explain").get_json()
    assert [(item["endpoint"], item["reply"]) for item in found["replies"]] == [(1, "accepted")]
    assert (found["intent"], found["settled"]) == ("cancel", False)
    assert int(found["market"]["base_fee_wei"]) > 0
    house.mine_and_pump(2)
    assert reasons(house) == ["waits_for_horizon"]
    house.mine_and_pump(2)
    assert reasons(house)[0] == "final"


def test_events__of_a_message__paged_in_order_with_replies(house: House) -> None:
    house.post("m:1")
    house.run("m:1")
    first = house.client.get("/v1/transactions/m:1/events?limit=2").get_json()
    assert [item["type"] for item in first["items"]] == ["accepted", "signed"]
    rest = house.client.get(f"/v1/transactions/m:1/events?after={first['next']}").get_json()
    assert [item["type"] for item in rest["items"]] == ["broadcast", "mined", "settled"]
    assert rest["items"][0]["body"]["reply"] == "accepted"
    assert rest["items"][0]["previous_digest"] == first["items"][1]["digest"]
    assert rest["next"] is None


def test_gas__not_named__the_setting_unless_the_node_needs_more(database_url: str, node: Node) -> None:
    house = make_house(database_url, node, gas_limit=30_000)
    house.post("m:1", gas_limit=None)
    house.post("m:2", gas_limit=22_000, value_wei="5")
    house.run("m:2")
    assert [house.message(name)["gas_limit"] for name in ("m:1", "m:2")] == [30_000, 22_000]
    low = make_house(database_url, node, gas_limit=21_000)
    low.post("m:3", gas_limit=None, value_wei="6")
    low.run("m:3")
    assert low.message("m:3")["gas_limit"] == 26_250  # an estimate of 21,000 and a quarter


def test_get__unknown__404(house: House) -> None:
    answer = house.client.get("/v1/transactions/nobody")
    assert (answer.status_code, answer.get_json()["code"]) == (404, "transaction_not_found")


def test_get__wait__returns_once_the_status_changed(house: House) -> None:
    house.post("m:1")
    found: list[str] = []
    client = house.client.application.test_client()
    waiting = threading.Thread(
        target=lambda: found.append(client.get("/v1/transactions/m:1?wait=30").get_json()["status"])
    )
    waiting.start()
    house.pump()
    waiting.join()
    assert found[0] != "queued"


def test_list__filters__by_status_and_block_in_order(house: House) -> None:
    for number in range(3):
        house.post(f"m:{number}", value_wei=str(number + 1))
    house.run("m:2")
    house.post("m:3")

    def listed(query: str) -> tuple[list[str], str | None]:
        answer = house.client.get(f"/v1/transactions?{query}").get_json()
        return [item["message_id"] for item in answer["items"]], answer["next"]

    block = house.message("m:0")["block_number"]
    assert listed("status=queued")[0] == ["m:3"]
    assert listed("status=confirmed,queued")[0] == ["m:0", "m:1", "m:2", "m:3"]
    assert listed(f"from_block={block}&to_block={block}")[0] == ["m:0", "m:1", "m:2"]
    assert listed(f"from_block={block + 1}")[0] == []
    first, cursor = listed("limit=3")
    assert first == ["m:0", "m:1", "m:2"]
    assert listed(f"limit=3&after={cursor}") == (["m:3"], None)
    assert house.client.get("/v1/transactions?status=nonsense").status_code == 422


def test_signers__before_and_after__state_and_nonces(house: House) -> None:
    before = house.client.get("/v1/signers").get_json()["items"]
    assert [(item["address"], item["state"]) for item in before] == [(OPERATOR, "new"), (CUSTODY, "new")]
    house.post("m:1")
    house.pump()
    operator = house.client.get("/v1/signers").get_json()["items"][0]
    assert (operator["state"], operator["next_nonce"], operator["latest_nonce"], operator["in_flight"]) == (
        "active", 1, 0, 1,
    )  # fmt: skip


def test_deadline__passed_while_queued__expired_without_nonce(house: House) -> None:
    house.post("m:1", deadline=(datetime.now(UTC) - timedelta(seconds=1)).isoformat())
    house.pump()
    found = house.message("m:1")
    assert (found["status"], found["nonce"], found["reason"]["code"]) == ("expired", None, "deadline_passed")


def test_caller__no_key_set__only_this_machine_is_served(house: House) -> None:
    assert house.client.get("/v1/transactions", environ_base={"REMOTE_ADDR": "127.0.0.1"}).status_code == 200
    assert house.client.get("/v1/transactions", environ_base={"REMOTE_ADDR": "::1"}).status_code == 200
    assert house.client.get("/v1/transactions", environ_base={"REMOTE_ADDR": "10.0.0.9"}).status_code == 401
    assert house.client.get("/v1/transactions", headers={"X-Forwarded-For": "10.0.0.9"}).status_code == 401


def test_caller__key_set__needed_from_everywhere(database_url: str, node: Node) -> None:
    house = make_house(database_url, node, api_keys=("secret",))
    assert house.client.get("/v1/transactions").status_code == 401
    assert house.client.get("/v1/transactions", headers={HEADER: "secret"}).status_code == 200


def test_list__by_message_ids__those_that_are_known(house: House) -> None:
    for name in ("m:1", "m:2", "m:3"):
        house.post(name)
    client = house.client

    def listed(names: str) -> list[str]:
        answer = client.get("/v1/transactions", query_string={"message_ids": names})
        return [item["message_id"] for item in answer.get_json()["items"]]

    assert listed("m:3,m:1,m:none") == ["m:1", "m:3"]
    for wrong in ("", "m:1,,m:2", "a b", ",".join(["m:1"] * 101)):
        answer = client.get("/v1/transactions", query_string={"message_ids": wrong})
        assert (answer.status_code, answer.get_json()["code"]) == (422, "invalid_input"), wrong
