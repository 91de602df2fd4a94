"""ETH that arrives in custody: listed until a movement names its transaction, and booked by its hash once, for one user."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from web3 import Web3

from apps.clients.shapes.payouts import NewDeposit, UnidentifiedDeposits, UnidentifiedQuery
from apps.common.database import make_engine as engine_of
from apps.common.database import make_sessions, transaction
from apps.common.errors import ServiceError
from apps.common.settings import normalise_database_url
from apps.common.shapes import dump
from apps.common.wei import ETHER
from apps.protocols.arrivals import Arrivals
from apps.protocols.chain import Chain
from apps.protocols.deposits import DepositReads, hashes_in
from apps.protocols.models import ArrivalCursor
from tests.support.flows import Flows
from tests.support.payouts import refused
from tests.support.protocols import POOL, make_settings

HASH = "0x" + "ab" * 32


def arrive(flows: Flows, wei: int, sender: str | None = None) -> str:
    """ETH comes to custody; returns the transaction's hash."""
    desk = flows.desk
    sent = desk.web3.eth.send_transaction(
        {
            "from": Web3.to_checksum_address(sender or desk.user),
            "to": Web3.to_checksum_address(desk.operator),
            "value": Web3.to_wei(wei, "wei"),
        }
    )
    return Web3.to_hex(sent)


def book(flows: Flows, name: str, user: str, tx_hash: str) -> dict[str, Any]:
    return dump(flows.service.deposits.create(name, NewDeposit(user_id=user, tx_hash=tx_hash))[0])


def listed(flows: Flows, **query: Any) -> UnidentifiedDeposits:
    return flows.service.deposits.unidentified(UnidentifiedQuery(**query))


def hashes(found: UnidentifiedDeposits) -> list[str]:
    return [item.tx_hash for item in found.items]


def test_unidentified__what_nobody_has_posted__listed_with_its_sender_and_in_order(flows: Flows) -> None:
    first, second = arrive(flows, ETHER), arrive(flows, 2 * ETHER, flows.desk.custody)
    found = listed(flows)
    assert hashes(found)[-2:] == [first, second]
    one = found.items[-1]
    block = flows.desk.web3.eth.get_block(one.block_number)
    assert (one.sender, one.amount_wei) == (Web3.to_checksum_address(flows.desk.custody), 2 * ETHER)
    assert one.block_hash == Web3.to_hex(block["hash"])
    assert (found.scanned_block, found.complete) == (found.horizon_block, True)
    assert hashes(listed(flows, limit=1, after=f"{one.block_number}:-1")) == [second]
    assert listed(flows, limit=1).next is not None


def test_unidentified__posted_at_the_ledger_by_reference_or_message_id__listed_no_more(flows: Flows) -> None:
    by_reference, by_name, reversed_ = (arrive(flows, ETHER) for _ in range(3))
    ledger = flows.ledger
    ledger.post_movement("seen:1", "deposit", POOL, "ann", ETHER, f"tx {by_reference.upper().replace('X', 'x', 1)}")
    ledger.post_movement(f"dep-{by_name}", "deposit", POOL, "ann", ETHER)
    ledger.post_movement("seen:3", "deposit", POOL, "ann", ETHER, reversed_)
    assert not {by_reference, by_name, reversed_} & set(hashes(listed(flows, limit=200)))
    assert refused(lambda: book(flows, "b:1", "bob", by_reference)) == (409, "deposit_posted")
    assert refused(lambda: book(flows, "b:2", "bob", by_name)) == (409, "deposit_posted")
    ledger.post_movement("undo:3", "reversal", POOL, "ann", ETHER, "seen:3")
    assert reversed_ in hashes(listed(flows, limit=200))
    book(flows, "b:3", "bob", reversed_)


def test_unidentified__empty_or_our_own_transfers_and_what_a_withdrawal_pays__not_listed(flows: Flows) -> None:
    desk = flows.desk
    before = hashes(listed(flows, limit=200))
    arrive(flows, 0)
    flows.stake("eve", ETHER)  # whose deposit stands in the ledger without its transaction
    before.append(hashes(listed(flows, limit=200))[-1])
    flows.ask("unstake", "eve", ETHER)
    flows.settle()
    desk.oracle.finalize()
    flows.claims()
    flows.settle()
    assert ETHER - 10 <= int(flows.balance("eve")["available_wei"]) <= ETHER
    assert hashes(listed(flows, limit=200)) == before


def test_deposit__by_its_hash__the_chains_amount_once_for_one_user(flows: Flows) -> None:
    tx_hash = arrive(flows, 7 * ETHER)
    before = int(flows.balance("carol")["available_wei"])
    made = book(flows, "d:1", "carol", tx_hash)
    assert (made["kind"], made["status"], made["amount_wei"]) == ("deposit", "completed", str(7 * ETHER))
    assert (made["deposit_tx_hash"], made["settled_wei"]) == (tx_hash, str(7 * ETHER))
    assert book(flows, "d:1", "carol", tx_hash) == made
    assert refused(lambda: book(flows, "d:2", "carol", tx_hash)) == (409, "deposit_posted")
    assert refused(lambda: book(flows, "d:3", "dave", tx_hash)) == (409, "deposit_posted")
    assert refused(lambda: book(flows, "d:1", "dave", tx_hash)) == (422, "message_id_reused")
    assert flows.balance("carol")["available_wei"] == str(before + 7 * ETHER)
    movement = flows.ledger.movement(f"deposit:{tx_hash}")
    assert movement is not None
    assert (movement.kind, movement.reference) == ("deposit", tx_hash)
    assert tx_hash not in hashes(listed(flows, limit=200))


def test_deposit__twenty_callers_for_one_transaction__one_gets_it(flows: Flows) -> None:
    tx_hash = arrive(flows, 3 * ETHER)
    begin = threading.Barrier(20)

    def one(number: int) -> str:
        begin.wait()
        try:
            return str(book(flows, f"race:{number}", f"racer-{number}", tx_hash)["status"])
        except ServiceError as error:
            return error.code

    with ThreadPoolExecutor(20) as callers:
        answers = list(callers.map(one, range(20)))
    assert sorted(answers) == ["completed"] + ["deposit_posted"] * 19
    held = [int(flows.balance(f"racer-{number}")["available_wei"]) for number in range(20)]
    assert sorted(held) == [0] * 19 + [3 * ETHER]


def test_deposit__that_is_none__refused_by_name(flows: Flows) -> None:
    desk = flows.desk
    elsewhere = Web3.to_hex(
        desk.web3.eth.send_transaction(
            {
                "from": Web3.to_checksum_address(desk.user),
                "to": Web3.to_checksum_address(desk.custody),
                "value": Web3.to_wei(1, "wei"),
            }
        )
    )
    for number, tx_hash in enumerate((elsewhere, arrive(flows, 0), arrive(flows, 5, desk.operator))):
        assert refused(partial(book, flows, f"none:{number}", "ann", tx_hash)) == (422, "not_a_deposit")
    assert refused(lambda: book(flows, "none:9", "ann", HASH)) == (409, "deposit_not_final")


def test_deposit__not_at_the_horizon_yet__refused_until_it_is(
    flows: Flows, make_database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tx_hash = arrive(flows, ETHER)
    deep = make_settings(flows.desk, make_database("protocols"), custody_address=flows.desk.operator, confirmations=4)
    reads = DepositReads(Chain(deep), make_sessions(engine_of(deep.database_url)), flows.ledger, POOL)
    monkeypatch.setattr(flows.context.protocols, "transfer", reads.transfer)
    for _ in range(3):
        assert refused(lambda: book(flows, "early", "ann", tx_hash)) == (409, "deposit_not_final")
        flows.desk.oracle.mine()
    assert book(flows, "early", "ann", tx_hash)["status"] == "completed"


def test_deposit__that_failed_on_chain__neither_listed_nor_booked(flows: Flows) -> None:
    desk = flows.desk
    desk.rpc("anvil_setCode", desk.operator, "0x60006000fd")
    try:
        sent = {"from": desk.user, "to": desk.operator, "value": hex(ETHER), "gas": hex(50_000)}
        tx_hash = str(desk.rpc("eth_sendTransaction", sent))
    finally:
        desk.rpc("anvil_setCode", desk.operator, "0x")
    assert tx_hash not in hashes(listed(flows, limit=200))
    assert refused(lambda: book(flows, "failed", "ann", tx_hash)) == (422, "not_a_deposit")


def test_remainder__what_came_without_a_transaction__is_what_the_list_does_not_explain(flows: Flows) -> None:
    desk = flows.desk
    arrive(flows, 4 * ETHER)
    flows.walking()
    assert flows.reconcile()["verdict"] == "ok"
    first = listed(flows).remainder
    assert first is not None
    desk.rpc(
        "anvil_setBalance", desk.operator, hex(desk.balance(desk.operator) + 6 * ETHER)
    )  # as a contract would send it
    flows.reconcile()
    found = listed(flows)
    assert found.remainder is not None
    assert found.remainder.remainder_wei - first.remainder_wei == 6 * ETHER
    assert found.remainder.listed_wei == found.listed_wei >= 4 * ETHER
    assert found.remainder.unidentified_wei == found.remainder.listed_wei + found.remainder.remainder_wei


def test_arrivals__chain_that_went_back_below_what_was_read__read_again_by_themselves(flows: Flows) -> None:
    listed(flows)
    sessions = make_sessions(engine_of(normalise_database_url(flows.databases["protocols"])))
    with transaction(sessions) as session:
        cursor = session.query(ArrivalCursor).one()
        place, cursor.block_hash = cursor.block_number, HASH  # another block stood there when it was read
    tx_hash = arrive(flows, 9)
    found = listed(flows, limit=200)
    assert tx_hash in hashes(found)
    assert found.scanned_block > place
    assert len(hashes(found)) == len(set(hashes(found)))


def test_arrivals__two_readers_at_once__each_stored_once(flows: Flows) -> None:
    made = [arrive(flows, 11 + number) for number in range(30)]
    settings = make_settings(flows.desk, flows.databases["protocols"], custody_address=flows.desk.operator)
    sessions = make_sessions(engine_of(settings.database_url))
    with ThreadPoolExecutor(4) as readers:
        ends = list(readers.map(lambda _: Arrivals(Chain(settings), sessions).scan(), range(4)))
    assert {end[0] for end in ends} == {flows.desk.head()}
    assert [tx for tx in hashes(listed(flows, limit=200)) if tx in made] == made


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ((HASH, None), {HASH}),
        ((f"dep:{HASH.upper().replace('X', 'x', 1)}:1", "m"), {HASH}),
        ((HASH[:-1], "0x" + "ab" * 33), set()),
        ((f"{HASH},0x{'cd' * 32}", None), {HASH, "0x" + "cd" * 32}),
    ],
)
def test_hashes__in_a_movements_texts__whole_ones_in_lower_case(texts: tuple[str | None, ...], found: set[str]) -> None:
    assert hashes_in(*texts) == found
