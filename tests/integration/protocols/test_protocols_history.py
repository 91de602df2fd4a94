"""The operator's share history: every flow once, in chain order, classified, rewards to the wei."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from apps.common.wei import ETHER
from tests.support.lido import ZERO, Desk
from tests.support.protocols import LIFE, House, live_a_life, make_house

ITEM = ["kind", "block_number", "block_hash", "tx_hash", "log_index", "shares", "amount_wei", "rebase"]
REBASE = [
    "block_number", "block_hash", "tx_hash", "log_index", "time_elapsed_sec", "pre_total_shares", "pre_total_ether_wei",
    "post_total_shares", "post_total_ether_wei", "operator_shares", "reward_wei",
]  # fmt: skip


def kinds(items: list[dict[str, Any]]) -> list[str]:
    return [item["kind"] for item in items]


def test_history__a_life__classified_in_chain_order(house: House) -> None:
    live_a_life(house.desk)
    items = house.history()
    assert kinds(items) == LIFE
    places = [(item["block_number"], item["log_index"]) for item in items]
    assert places == sorted(set(places))
    assert all(list(item) == ITEM for item in items)
    assert [item["amount_wei"] for item in items if item["kind"] == "request"] == [str(7 * ETHER), str(5 * ETHER)]
    assert items[0]["amount_wei"] == str(100 * ETHER)


def test_history__flows__sum_to_the_shares_on_chain_at_every_item(house: House) -> None:
    desk = house.desk
    live_a_life(desk)
    held = 0
    for item in house.history():
        if item["kind"] == "rebase":
            assert int(item["rebase"]["operator_shares"]) == held
        elif item["kind"] in {"submit", "foreign_in"}:
            held += int(item["shares"])
        elif item["kind"] in {"request", "foreign_out"}:
            held -= int(item["shares"])
        else:
            assert item["shares"] is None
    assert held == desk.shares(desk.operator)


def test_history__rewards__what_the_balance_gained_to_the_wei(house: House) -> None:
    desk = house.desk
    live_a_life(desk)
    rebases = [item["rebase"] for item in house.history() if item["kind"] == "rebase"]
    for rebase in rebases:
        assert list(rebase) == REBASE
        balance = desk.lido.balanceOf(desk.operator)
        block = rebase["block_number"]  # nothing else happened in it
        gained = balance.call(block_identifier=block) - balance.call(block_identifier=block - 1)
        assert int(rebase["reward_wei"]) == gained
    assert [int(rebase["reward_wei"]) > 0 for rebase in rebases] == [True, False, True]


def test_history__claim__carries_what_was_paid(house: House) -> None:
    desk = house.desk
    desk.submit(desk.operator, 10 * ETHER)
    desk.submit(desk.user, 10 * ETHER)
    mine, theirs = desk.request(desk.operator, [ETHER])[0], desk.request(desk.user, [ETHER])[0]
    desk.oracle.rebase(-500 * ETHER, finalize_up_to=theirs)
    before = desk.balance(desk.custody)
    desk.claim(desk.operator, [mine], desk.custody)
    desk.claim(desk.user, [theirs], desk.user)
    claims = [item for item in house.history() if item["kind"] == "claim"]
    assert [int(item["amount_wei"]) for item in claims] == [desk.balance(desk.custody) - before]


def test_history__all_in_one_block__order_and_shares_before_the_rebase_exact(house: House) -> None:
    desk = house.desk
    desk.submit(desk.operator, 50 * ETHER)
    desk.approve(desk.operator, 2**256 - 1)
    held = desk.shares(desk.operator)
    owner = desk.deployment.owner
    receipts = desk.in_one_block(
        (desk.lido.submit(ZERO), desk.operator, 3 * ETHER),
        (desk.lido.report(5 * ETHER, 0, 0), owner, 0),
        (desk.lido.transfer(desk.operator, ETHER), desk.deployment.stranger, 0),
        (desk.queue.requestWithdrawals([ETHER, 2 * ETHER], desk.operator), desk.operator, 0),
        (desk.lido.report(-5 * ETHER, 0, 0), owner, 0),
        (desk.lido.submit(ZERO), desk.operator, ETHER),
    )
    items = [item for item in house.history() if item["block_number"] == receipts[0]["blockNumber"]]
    assert kinds(items) == ["submit", "rebase", "foreign_in", "request", "request", "rebase", "submit"]
    for item in items:
        shares = int(item["shares"] or 0)
        if item["kind"] == "rebase":
            found = item["rebase"]
            assert int(found["operator_shares"]) == held
            post = held * int(found["post_total_ether_wei"]) // int(found["post_total_shares"])
            pre = held * int(found["pre_total_ether_wei"]) // int(found["pre_total_shares"])
            assert int(found["reward_wei"]) == post - pre
        held += shares if item["kind"] in {"submit", "foreign_in"} else -shares
    assert held == desk.shares(desk.operator)


def test_history__steth_thrown_at_the_queue__foreign_out_even_beside_a_request(house: House) -> None:
    desk = house.desk
    desk.submit(desk.operator, 50 * ETHER)
    desk.approve(desk.operator, 2**256 - 1)
    queue = desk.deployment.withdrawal_queue
    desk.in_one_block(
        (desk.lido.transfer(queue, ETHER), desk.operator, 0),
        (desk.queue.requestWithdrawals([2 * ETHER], desk.operator), desk.operator, 0),
    )
    assert kinds(house.history()) == ["submit", "foreign_out", "request"]


def test_history__request_for_somebody_else__foreign_out(house: House) -> None:
    desk = house.desk
    desk.submit(desk.operator, 50 * ETHER)
    desk.approve(desk.operator, 5 * ETHER)
    desk.do(desk.queue.requestWithdrawals([ETHER], desk.user), desk.operator)
    assert kinds(house.history()) == ["submit", "foreign_out"]


def test_history__transfer_to_itself__no_item(house: House) -> None:
    desk = house.desk
    desk.submit(desk.operator, 50 * ETHER)
    desk.do(desk.lido.transfer(desk.operator, ETHER), desk.operator)
    assert kinds(house.history()) == ["submit"]


@pytest.mark.parametrize("limit", [1, 2, 4])
def test_history__paged_by_cursor__same_items_without_gap_or_repeat(house: House, limit: int) -> None:
    live_a_life(house.desk)
    whole = house.history()
    pages: list[dict[str, Any]] = []
    after = None
    while True:
        page = house.get("/v1/lido/history", limit=limit, **({} if after is None else {"after": after}))
        assert len(page["items"]) <= limit
        pages += page["items"]
        after = page["next"]
        if after is None:
            break
        assert after == f"{pages[-1]['block_number']}:{pages[-1]['log_index']}"
    assert pages == whole


def test_history__read_block_by_block__same_as_in_one_range(house: House, make_database: Any) -> None:
    live_a_life(house.desk)
    narrow = make_house(house.desk, make_database("protocols"), log_range_blocks=1)
    assert narrow.history() == house.history()


def test_history__read_while_it_happens__same_as_read_afterwards(house: House, make_database: Any) -> None:
    desk = house.desk
    desk.submit(desk.operator, ETHER)
    assert kinds(house.history()) == ["submit"]
    live_a_life(desk)
    assert kinds(house.history()) == ["submit", *LIFE]
    assert house.history() == make_house(desk, make_database("protocols")).history()


def test_history__start_block__older_items_left_out(desk: Desk, database_url: str) -> None:
    desk.submit(desk.operator, ETHER)
    later = make_house(desk, database_url, start_block=desk.head())
    desk.submit(desk.operator, 2 * ETHER)
    assert [item["amount_wei"] for item in later.history()] == [str(2 * ETHER)]


def test_history__confirmations__nothing_above_the_horizon(desk: Desk, database_url: str) -> None:
    house = make_house(desk, database_url, confirmations=3)
    desk.submit(desk.operator, ETHER)
    mined = desk.head()
    for depth, seen in ((1, []), (2, []), (3, ["submit"])):
        page = house.get("/v1/lido/history")
        assert page["horizon"]["block_number"] == mined + depth - 3
        assert kinds(page["items"]) == seen
        desk.oracle.mine()
    assert page["horizon"]["block_hash"] == desk.rpc("eth_getBlockByNumber", hex(mined), False)["hash"]


def test_history__first_readers_at_once__every_one_answered_and_rows_once(house: House) -> None:
    live_a_life(house.desk)
    client = house.client.application.test_client
    readers = [House(house.desk, house.database_url, client()) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda reader: reader.history(), readers))
    assert all(kinds(items) == LIFE for items in found)
    engine = create_engine(house.database_url.replace("postgresql://", "postgresql+psycopg2://"))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM share_events")).scalar() == len(LIFE)
    engine.dispose()


def test_history__read_block_left_the_chain__conflict_until_ops_decide(house: House) -> None:
    desk = house.desk
    snapshot = desk.rpc("evm_snapshot")
    desk.submit(desk.operator, ETHER)
    house.history()
    desk.rpc("evm_revert", snapshot)
    assert [item["kind"] for item in house.history()] == ["submit"]  # a node that is behind says nothing against it
    desk.submit(desk.operator, 2 * ETHER)
    for _ in range(2):  # seen, and seen again at a later block
        doubted = house.ask("/v1/lido/history")
        assert (doubted.status_code, doubted.get_json()["code"]) == (503, "chain_unavailable")
        desk.oracle.mine()
    gone = house.ask("/v1/lido/history")
    assert (gone.status_code, gone.get_json()["code"]) == (409, "chain_reorganized")


@pytest.mark.parametrize("after", ["x", "1", "1:", ":1", "1:x", "1:2:3", "-1:0"])
def test_history__no_cursor__invalid_input(house: House, after: str) -> None:
    answer = house.ask("/v1/lido/history", after=after)
    assert (answer.status_code, answer.get_json()["code"]) == (422, "invalid_input")


def test_history__cursor_beyond_everything__empty(house: House) -> None:
    house.desk.submit(house.desk.operator, ETHER)
    assert house.history(after="9007199254740991:2147483647") == []


def test_history__cursor_that_no_answer_can_have_given__422(house: House) -> None:
    answer = house.ask("/v1/lido/history", after="99999999999999999999999:99999999999")
    assert (answer.status_code, list(answer.get_json()["errors"])) == (422, ["after"])


def test_rebases__after_a_block__only_later_ones_paged_by_cursor(house: House) -> None:
    live_a_life(house.desk)
    rebases = [{**item["rebase"], **item} for item in house.history() if item["kind"] == "rebase"]
    assert house.get("/v1/lido/rebases") == {"items": rebases, "next": None}
    later = house.get("/v1/lido/rebases", after_block=rebases[0]["block_number"])
    assert later["items"] == rebases[1:]
    first = house.get("/v1/lido/rebases", limit=2)
    rest = house.get("/v1/lido/rebases", limit=2, after=first["next"])
    assert (first["items"], rest["items"], rest["next"]) == (rebases[:2], rebases[2:], None)
