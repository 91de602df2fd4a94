"""What one node says once stops no key and ends no message; what is seen again, at later blocks, does."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.anvil import start_anvil
from tests.support.relayer import CUSTODY, OPERATOR, STRANGER, House, Node, make_house
from tests.support.rude_node import BATCH_STYLES, RudeNode, rude_node

COUNT = "eth_getTransactionCount"
NOBODY = "http://127.0.0.1:1"


@pytest.fixture
def node() -> Iterator[Node]:
    with start_anvil() as anvil:
        found = Node(anvil.url)
        found.mine_by_hand()
        yield found


@pytest.fixture
def rude(node: Node) -> Iterator[RudeNode]:
    with rude_node(node.url) as found:
        yield found


@pytest.fixture
def database_url(make_database: Callable[[str], str]) -> str:
    return make_database("relayer")


@pytest.fixture
def house(database_url: str, node: Node, rude: RudeNode) -> House:
    return make_house(database_url, node, rpc_urls=(rude.url,))


def state(house: House) -> str:
    items = house.client.get("/v1/signers").get_json()["items"]
    return str(next(item["state"] for item in items if item["address"] == OPERATOR))


def reason(house: House, message_id: str) -> str | None:
    found = house.message(message_id)["reason"]
    return None if found is None else str(found["code"])


def test_pending__counted_wrong_once__key_lives_and_signs_on(house: House, rude: RudeNode) -> None:
    house.post("m:1")
    assert house.run("m:1")["status"] == "confirmed"
    rude.rude("pending", times=1)
    house.pump()
    assert (rude.used, state(house)) == (["pending"], "active")
    house.post("m:2", value_wei="5")
    house.pump()
    assert reason(house, "m:2") == "signer_doubted"  # until it was not there at later blocks
    found = house.run("m:2", ticks=12)
    assert (found["status"], found["nonce"], state(house)) == ("confirmed", 1, "active")


def test_pending__counted_wrong_at_one_block_only__however_often_no_quarantine(house: House, rude: RudeNode) -> None:
    house.pump()
    house.post("m:1")
    rude.rude("pending")
    for _ in range(10):
        house.pump()
    assert state(house) == "active"
    assert house.message("m:1")["status"] == "queued"
    rude.calm()
    assert house.run("m:1", ticks=12)["status"] == "confirmed"


@pytest.mark.parametrize("every", [2, 3])
def test_pending__counted_wrong_by_one_of_two_nodes_behind_one_address__nothing_is_signed_meanwhile(
    house: House, rude: RudeNode, every: int
) -> None:
    """Whether it is right nobody knows, so the key waits; a look without it is no proof either."""
    house.pump()
    house.post("m:1")
    rude.rude("pending", every=2 * every)  # two keys are counted at each tick
    house.mine_and_pump(2 * every)
    assert rude.used
    assert house.message("m:1")["nonce"] is None or state(house) == "active"
    rude.calm()
    found = house.run("m:1", ticks=12)
    assert found["status"] == ("confirmed" if state(house) == "active" else "queued")


def test_pending__counted_wrong_at_every_later_block__quarantined(house: House, rude: RudeNode) -> None:
    house.pump()
    rude.rude("pending")
    states = []
    for _ in range(3):
        house.mine_and_pump()
        states.append(state(house))
    assert states == ["active", "active", "quarantined"]


def test_pending__other_endpoint_does_not_see_it__no_quarantine(database_url: str, node: Node, rude: RudeNode) -> None:
    house = make_house(database_url, node, rpc_urls=(rude.url, node.url))
    house.pump()
    rude.rude("pending")
    house.mine_and_pump(6)
    assert state(house) == "active"
    house.post("m:1")
    assert house.run("m:1")["status"] == "confirmed"


@pytest.mark.parametrize("endpoints", [1, 2])
def test_stranger__mined_with_the_key__quarantined_at_the_second_block(
    database_url: str, node: Node, endpoints: int
) -> None:
    house = make_house(database_url, node, rpc_urls=(node.url,) * endpoints)
    house.pump()
    house.post("m:1")
    node.send_as_stranger(0)
    node.mine()
    house.pump()
    assert (state(house), reason(house, "m:1")) == ("active", "signer_doubted")
    house.pump()
    assert state(house) == "active"  # the same block says nothing new
    house.mine_and_pump()
    assert state(house) == "quarantined"
    assert (house.message("m:1")["status"], house.message("m:1")["nonce"]) == ("queued", None)


def test_doubted_key__nothing_of_it_is_ended_or_taken_back(house: House, rude: RudeNode) -> None:
    """A transaction that is not recorded may have executed what is queued: no end may say that it was not."""
    house.pump()
    rude.rude("pending", times=1)
    house.pump()
    house.post("m:1", deadline="2020-01-01T00:00:00Z")
    house.post("m:2", value_wei="5")
    house.pump()
    assert house.message("m:1")["status"] == "queued"
    assert house.client.post("/v1/transactions/m:2/cancel").get_json()["code"] == "signer_doubted"
    house.mine_and_pump(4)
    assert house.message("m:1")["status"] == "expired"
    assert house.run("m:2", ticks=12)["status"] == "confirmed"


def lies_at(method: str, result: dict[str, Any], times: int, where: Callable[[list[Any]], bool] = bool) -> Any:
    left = [times]

    def answer(item: dict[str, Any]) -> dict[str, Any] | None:
        if item["method"] != method or not left[0] or not where(item["params"]):
            return None
        left[0] -= 1
        return result

    return answer


def test_simulation__reverts_by_a_node_that_lags__message_lives(house: House, rude: RudeNode) -> None:
    house.pump()
    rude.rude("instead", answer=lies_at("eth_call", {"error": {"code": 3, "message": "execution reverted"}}, 1))
    house.post("m:1")
    for _ in range(3):
        house.pump()
    assert house.run("m:1")["status"] == "confirmed"


def test_simulation__reverts_by_one_of_two_endpoints__message_lives(
    database_url: str, node: Node, rude: RudeNode
) -> None:
    house = make_house(database_url, node, rpc_urls=(rude.url, node.url))
    house.pump()
    rude.rude("instead", answer=lies_at("eth_call", {"error": {"code": 3, "message": "execution reverted"}}, 100))
    house.post("m:1")
    house.mine_and_pump(4)
    assert (house.message("m:1")["status"], reason(house, "m:1")) == ("queued", "simulation_reverted")
    rude.calm()
    assert house.run("m:1")["status"] == "confirmed"


def test_simulation__reverts_at_two_blocks__rejected_without_a_nonce(house: House) -> None:
    house.node.rpc("anvil_setCode", CUSTODY, "0x5f5ffd")
    house.post("m:1", gas_limit=50_000)
    house.pump()
    house.pump()
    assert house.message("m:1")["status"] == "queued"
    house.mine_and_pump()
    found = house.message("m:1")
    assert (found["status"], found["nonce"], found["reason"]["code"]) == ("rejected", None, "simulation_reverted")


def test_nonce__taken_by_a_stranger_as_one_look_says__message_is_not_ended(house: House, rude: RudeNode) -> None:
    """The receipt is kept back and the block's transaction is another one, in one look: the next one knows better."""
    house.pump()
    house.post("m:1")
    house.pump()
    house.node.mine()
    number = house.node.head()
    house.node.mine(2)
    block = house.node.rpc("eth_getBlockByNumber", hex(number), True)
    (ours,) = block["transactions"]
    foreign = {**block, "transactions": [{**ours, "hash": "0x" + "ab" * 32, "to": STRANGER}]}

    def answer(item: dict[str, Any]) -> dict[str, Any] | None:
        if item["method"] == "eth_getTransactionReceipt":
            return {"result": None}
        return {"result": foreign} if item["params"][:2] == [hex(number), True] else None

    rude.rude("instead", answer=answer)
    for _ in range(3):
        house.pump()
    assert (house.message("m:1")["status"], state(house)) == ("broadcast", "active")
    rude.calm()
    assert house.run("m:1")["status"] == "confirmed"
    assert state(house) == "active"


LIVED_WITH: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"batch of 10, {style}": ("batch_limit", {"most": 10, "style": style}) for style in BATCH_STYLES},
    "no batch at all": ("batch_limit", {"most": 1, "style": "400"}),
    "small answers": ("response_limit", {"most": 8_000, "style": "items"}),
    "429 now and then": ("rate", {"every": 5}),
    "rate limit by call": ("rate", {"every": 5, "style": "items"}),
    "no fee history": ("missing", {"methods": ("eth_feeHistory", "eth_maxPriorityFeePerGas")}),
    "in another order": ("shuffled", {}),
    "doubled": ("doubled", {}),
    "answers lost": ("lose_items", {"every": 4}),
    "without ids": ("no_ids", {}),
    "lags now and then": ("lag", {"every": 7, "blocks": 1}),
}


@pytest.mark.parametrize("limit", LIVED_WITH)
def test_provider__with_a_limit__thirty_messages_confirmed_once_each(house: House, rude: RudeNode, limit: str) -> None:
    name, options = LIVED_WITH[limit]
    rude.rude(name, **options)
    for number in range(30):
        house.post(f"m:{number}", value_wei=str(number + 1))
    house.run("m:29", ticks=40)
    assert house.node.executions() == {number + 1: 1 for number in range(30)}
    assert {house.message(f"m:{number}")["status"] for number in range(30)} == {"confirmed"}
    assert state(house) == "active"
    assert len(rude.requests) < 1_500


def test_health__of_a_node_with_limits__says_them_and_503_when_a_tick_can_see_nothing(
    house: House, rude: RudeNode
) -> None:
    rude.rude("batch_limit", most=10)
    rude.rude("missing", methods=("eth_feeHistory",))
    page = house.client.get("/healthz").get_json()
    (shown,) = page["checks"]["chain"]["value"]["nodes"]
    assert (shown["batch_limit"] <= 10, shown["fee_history"]) == (True, False)
    for name, options in (("no_block_hashes", {}), ("rate", {"retry_after": 5}), ("broken", {"kind": "garbage"})):
        rude.calm()
        rude.rude(name, **options)
        checks = house.client.get("/healthz").get_json()["checks"]
        assert (checks["chain"]["ok"], checks["database"]["ok"]) == (False, True), name
