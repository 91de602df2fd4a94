"""Payouts from the POST to the books: paid once, given back where they certainly had no effect, refused by name."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text
from web3 import Web3

from apps.clients.shapes.payouts import NewPaid, NewPayout, PayoutAddressesQuery
from apps.clients.shapes.walk import NewRelease
from apps.common.database import transaction
from apps.common.errors import ServiceError
from apps.common.shapes import dump
from apps.common.wei import ETHER
from apps.pool.feed import number_events
from tests.support.flows import Flows
from tests.support.protocols import POOL

DELEGATED = Web3.to_checksum_address("0x" + "0d" * 20)
CONTRACT = "0x" + "0c" * 20


@pytest.fixture
def user(flows: Flows, request: pytest.FixtureRequest) -> str:
    """A user of the test's own, with 30 ETH and an address that can be paid."""
    name = Web3.keccak(text=request.node.name).hex()[:12]
    flows.deposit(name, 30 * ETHER)
    flows.allow(name, payee(name))
    return name


def payee(user: str) -> str:
    return Web3.to_checksum_address(Web3.keccak(text=user)[-20:])


def refused(call: Any) -> tuple[int, str]:
    with pytest.raises(ServiceError) as error:
        call()
    return error.value.status, error.value.code


def relayer_cancel(flows: Flows, made: dict[str, Any]) -> None:
    flows.context.relayer.post(f"/v1/transactions/payout:{made['id']}:send/cancel", {})


def sql(flows: Flows, statement: str, **given: object) -> Any:
    with transaction(flows.context.sessions) as session:
        found: Any = session.execute(text(statement), given)
        return found.all() if found.returns_rows else None


def test_payout__to_the_end__paid_once_and_the_books_are_the_chains_at_every_block(flows: Flows, user: str) -> None:
    made = flows.pay_out(user, 3 * ETHER, payee(user))
    assert (made["status"], made["payout"]["to"], made["payout"]["needs_approval"]) == ("sending", payee(user), False)
    assert flows.balance(user)["available_wei"] == str(27 * ETHER)
    assert flows.ledger.totals(POOL).system["@payouts"] == 3 * ETHER
    assert flows.drifts() == {}, "set aside, not sent"
    flows.requests()
    flows.requests()
    flows.pump()
    flows.pump()
    assert flows.desk.balance(payee(user)) == 3 * ETHER
    assert flows.drifts() == {}, "sent, and booked in its block"
    flows.settle()
    done = flows.request(made)
    assert (done["status"], done["settled_wei"]) == ("completed", str(3 * ETHER))
    assert [entry["status"] for entry in done["timeline"]] == ["reserving", "sending", "confirming", "completed"]
    (sent,) = done["transactions"]
    assert (sent["purpose"], sent["status"], sent["message_id"]) == ("payout", "confirmed", f"payout:{made['id']}:send")
    booked = flows.ledger.movement(f"payout:{made['id']}:paid")
    assert booked is not None
    assert (booked.kind, booked.amount_wei, booked.reference) == ("payout_paid", 3 * ETHER, sent["tx_hash"])
    assert flows.ledger.totals(POOL).system["@payouts"] == 0
    assert flows.drifts() == {}
    assert flows.desk.balance(payee(user)) == 3 * ETHER


def test_payout__posted_twice__one_payout_and_another_body_is_refused(flows: Flows, user: str) -> None:
    body = NewPayout(user_id=user, amount_wei=ETHER, to=payee(user))
    first, again = (flows.service.payouts.create(f"twice:{user}", body) for _ in range(2))
    assert (first[0].id, first[1], again[1]) == (again[0].id, False, True)
    other = NewPayout(user_id=user, amount_wei=2 * ETHER, to=payee(user))
    assert refused(lambda: flows.service.payouts.create(f"twice:{user}", other)) == (422, "message_id_reused")
    assert flows.balance(user)["available_wei"] == str(29 * ETHER)
    flows.settle()
    assert flows.desk.balance(payee(user)) == ETHER


def test_payout__more_than_the_user_has__rejected_and_nothing_moved(flows: Flows, user: str) -> None:
    flows.ledger.post_movement(f"elsewhere:{user}", "stake_reserve", POOL, user, 29 * ETHER)
    assert refused(lambda: flows.pay_out(user, 2 * ETHER, payee(user))) == (409, "insufficient_balance")
    assert flows.balance(user)["available_wei"] == str(ETHER)
    flows.ledger.post_movement(f"back:{user}", "stake_release", POOL, user, 29 * ETHER)


# ---- where it may go ----


@pytest.mark.parametrize("name", ["custody", "steth", "queue", "locator", "zero", "precompile", "burn", "contract"])
def test_address__that_no_user_can_be_paid_at__refused_by_name(flows: Flows, user: str, name: str) -> None:
    desk = flows.desk
    desk.rpc("anvil_setCode", CONTRACT, "0x00")
    addresses = {
        "custody": desk.operator,
        "steth": desk.deployment.steth,
        "queue": desk.deployment.withdrawal_queue,
        "locator": desk.lido.getLidoLocator().call(),
        "zero": "0x" + "00" * 20,
        "precompile": "0x" + "00" * 19 + "01",
        "burn": "0x000000000000000000000000000000000000dEaD",
        "contract": CONTRACT,
    }
    assert refused(lambda: flows.allow(user, addresses[name])) == (422, "payout_target_refused")


def test_address__of_a_delegated_account__can_be_paid_with_gas_for_its_code(flows: Flows, user: str) -> None:
    flows.desk.rpc("anvil_setCode", DELEGATED, "0xef0100" + "0e" * 20)
    account = flows.context.protocols.account(DELEGATED)
    assert (account.kind, account.delegate, account.refused) == (
        "delegated",
        Web3.to_checksum_address("0x" + "0e" * 20),
        None,
    )
    flows.allow(user, DELEGATED)
    made = flows.pay_out(user, ETHER, DELEGATED)
    flows.requests()
    assert sql(flows, "SELECT gas_limit FROM payout_transactions WHERE request_id = :id", id=made["id"]) == [(100_000,)]
    flows.settle()


def test_payout__address_not_on_the_list_or_too_new__refused(flows: Flows, user: str) -> None:
    elsewhere = payee("elsewhere")
    assert refused(lambda: flows.pay_out(user, ETHER, elsewhere)) == (409, "address_not_allowed")
    allowed = flows.allow(user, elsewhere)
    assert refused(lambda: flows.allow(user, elsewhere)) == (409, "address_allowed_already")
    sql(flows, "ALTER TABLE payout_addresses DISABLE TRIGGER fixed")
    try:
        sql(flows, "UPDATE payout_addresses SET usable_at = now() + interval '1 h' WHERE id = :id", id=allowed)
    finally:
        sql(flows, "ALTER TABLE payout_addresses ENABLE ALWAYS TRIGGER fixed")
    assert refused(lambda: flows.pay_out(user, ETHER, elsewhere)) == (409, "address_not_usable_yet")
    flows.service.payout_addresses.remove(user, allowed)
    assert refused(lambda: flows.pay_out(user, ETHER, elsewhere)) == (409, "address_not_allowed")


def test_payout__address_removed_before_it_is_sent__given_back_and_nothing_is_sent(flows: Flows, user: str) -> None:
    made = flows.pay_out(user, 2 * ETHER, payee(user))
    (listed,) = flows.service.payout_addresses.page(user, PayoutAddressesQuery()).items
    flows.service.payout_addresses.remove(user, listed.id)
    flows.settle()
    done = flows.request(made)
    assert (done["status"], done["reason"]["code"], done["transactions"]) == ("failed", "address_not_allowed", [])
    assert flows.balance(user)["available_wei"] == str(30 * ETHER)
    assert flows.context.relayer.transaction(f"payout:{made['id']}:send") is None


def test_payout__address_that_became_a_contract__given_back(flows: Flows, user: str) -> None:
    made = flows.pay_out(user, ETHER, payee(user))
    flows.desk.rpc("anvil_setCode", payee(user), "0x00")
    flows.settle()
    done = flows.request(made)
    assert (done["status"], done["reason"]["code"]) == ("failed", "payout_target_refused")
    assert flows.balance(user)["available_wei"] == str(30 * ETHER)


# ---- limits ----


def test_payouts__fifty_at_once_past_the_days_limit__as_many_as_fit_and_no_more(flows: Flows, user: str) -> None:
    def one(number: int) -> str:
        body = NewPayout(user_id=user, amount_wei=3 * ETHER, to=payee(user))
        try:
            flows.service.payouts.create(f"race:{user}:{number}", body)
        except ServiceError as error:
            return error.code
        return "made"

    with ThreadPoolExecutor(12) as callers:
        answers = list(callers.map(one, range(50)))
    assert answers.count("made") == 6, "20 ETH a day hold six of three"
    assert set(answers) == {"made", "payout_user_limit"}
    flows.settle()
    assert flows.balance(user)["available_wei"] == str(12 * ETHER)
    assert flows.desk.balance(payee(user)) == 18 * ETHER
    assert refused(lambda: flows.pay_out(user, 3 * ETHER, payee(user))) == (409, "payout_user_limit")
    flows.pay_out(user, 2 * ETHER, payee(user))  # what is left
    flows.settle()


def test_payouts__what_was_given_back__counts_against_no_limit(flows: Flows, user: str) -> None:
    for _ in range(3):
        made = flows.pay_out(user, 20 * ETHER, payee(user))
        assert flows.service.cancel(made["id"]).status == "cancelled"
    assert flows.balance(user)["available_wei"] == str(30 * ETHER)


def test_payouts__of_all_users_past_the_houses_limit__refused(flows: Flows, user: str) -> None:
    spent = sql(flows, "SELECT coalesce(sum(p.amount_wei), 0) FROM payouts p JOIN requests r ON r.id = p.request_id"
                       " WHERE r.status NOT IN ('failed', 'cancelled', 'rejected')")  # fmt: skip
    left = 100 * ETHER - int(spent[0][0])
    others: list[dict[str, Any]] = []
    while left >= 15 * ETHER:
        other = f"{user}-{len(others)}"
        flows.deposit(other, 15 * ETHER)
        flows.allow(other, payee(other))
        others.append(flows.pay_out(other, 15 * ETHER, payee(other)))
        left -= 15 * ETHER
    assert refused(lambda: flows.pay_out(user, left + 1, payee(user))) == (409, "payout_house_limit")
    for made in others:
        flows.service.cancel(made["id"])


# ---- four eyes ----


def test_payout__above_four_eyes__waits_for_another_person_and_is_paid(flows: Flows, user: str) -> None:
    made = flows.pay_out(user, 11 * ETHER, payee(user), by="olga")
    flows.settle()
    assert flows.request(made)["status"] == "approving"
    assert refused(lambda: flows.service.payouts.approve(made["id"], "olga")) == (409, "second_person_needed")
    approved = flows.service.payouts.approve(made["id"], "paul")
    assert approved.payout is not None
    assert (approved.status, approved.payout.decided_by) == ("sending", "paul")
    assert refused(lambda: flows.service.payouts.approve(made["id"], "paul")) == (409, "not_approving")
    flows.settle()
    assert flows.request(made)["status"] == "completed"
    assert flows.desk.balance(payee(user)) == 11 * ETHER


def test_payout__refused_or_cancelled_while_it_waits_for_approval__given_back(flows: Flows, user: str) -> None:
    said_no = flows.pay_out(user, 11 * ETHER, payee(user))
    done = dump(flows.service.payouts.reject(said_no["id"], "paul"))
    assert (done["status"], done["reason"]["code"], done["payout"]["decided_by"]) == (
        "failed",
        "approval_refused",
        "paul",
    )
    taken_back = flows.pay_out(user, 11 * ETHER, payee(user))
    assert flows.service.cancel(taken_back["id"]).status == "cancelled"
    assert flows.balance(user)["available_wei"] == str(30 * ETHER)
    assert flows.drifts() == {}


# ---- what the relayer says ----


def test_payout__cancelled_at_the_relayer__given_back_once_that_is_final(flows: Flows, user: str) -> None:
    made = flows.pay_out(user, ETHER, payee(user))
    flows.requests()
    flows.requests()
    assert refused(lambda: flows.service.cancel(made["id"])) == (409, "not_cancellable")
    relayer_cancel(flows, made)
    flows.settle()
    done = flows.request(made)
    assert (done["status"], done["reason"]["code"]) == ("cancelled", "cancelled_by_caller")
    assert flows.balance(user)["available_wei"] == str(30 * ETHER)
    assert flows.drifts() == {}


def test_payout__reverted_on_chain__given_back_and_its_gas_booked(flows: Flows, user: str) -> None:
    made = flows.pay_out(user, ETHER, payee(user))
    flows.requests()
    flows.requests()
    flows.desk.rpc("evm_setAutomine", False)
    flows.pump()  # signed and sent: what stands there now no simulation sees any more
    flows.desk.rpc("anvil_setCode", payee(user), "0x60006000fd")
    flows.desk.rpc("evm_mine")
    flows.desk.rpc("evm_setAutomine", True)
    flows.settle()
    done = flows.request(made)
    assert (done["status"], done["transactions"][0]["status"]) == ("failed", "reverted")
    assert flows.balance(user)["available_wei"] == str(30 * ETHER)
    assert flows.drifts() == {}


# ---- when nothing leaves ----


def test_payout__while_the_books_cannot_be_trusted__waits_and_goes_on(flows: Flows, user: str) -> None:
    made = flows.pay_out(user, ETHER, payee(user))
    why = '{"code": "drift", "detail": "eth"}'
    flows.walking()
    sql(flows, "UPDATE walks SET batches_paused = CAST(:why AS jsonb)", why=why)
    flows.requests()
    found = flows.request(made)
    assert (found["status"], found["reason"]["code"], found["transactions"]) == ("sending", "batches_paused", [])
    sql(flows, "UPDATE walks SET batches_paused = NULL, status = 'halted'")
    flows.requests()
    assert flows.request(made)["reason"]["code"] == "walk_halted"
    sql(flows, "UPDATE walks SET status = 'walking'")
    flows.settle()
    assert flows.request(made)["status"] == "completed"


def test_payouts__their_events__are_in_the_feed_in_order(flows: Flows, user: str) -> None:
    made = flows.pay_out(user, ETHER, payee(user))
    flows.settle()
    number_events(flows.context.sessions)
    told = sql(flows, "SELECT status FROM request_events WHERE request_id = :id ORDER BY sequence", id=made["id"])
    assert [status for (status,) in told] == ["reserving", "sending", "confirming", "completed"]


# ---- the key in other hands, which the relayer rightly stops for: last ----


def test_payout__conflict__never_given_back_by_itself_and_each_way_out_is_checked(flows: Flows, user: str) -> None:
    paid, lost = (flows.pay_out(user, wei, payee(user)) for wei in (ETHER, 2 * ETHER))
    for _ in range(2):
        flows.requests()
    # As after a restored backup of the relayer: custody's key has paid one of them, and the relayer knows nothing of it.
    before = flows.desk.balance(flows.desk.operator)
    receipt = flows.desk.web3.eth.wait_for_transaction_receipt(
        flows.desk.web3.eth.send_transaction(
            {
                "from": Web3.to_checksum_address(flows.desk.operator),
                "to": Web3.to_checksum_address(payee(user)),
                "value": Web3.to_wei(ETHER, "wei"),
            }
        )
    )
    tx_hash = Web3.to_hex(receipt["transactionHash"])
    gas = before - flows.desk.balance(flows.desk.operator) - ETHER
    for made in (paid, lost):
        parked_by_conflict(flows, made)
    for made in (paid, lost):
        assert (flows.request(made)["status"], flows.request(made)["reason"]["code"]) == ("needs_attention", "conflict")
    assert flows.balance(user)["available_wei"] == str(27 * ETHER)

    resolutions = flows.service.payout_resolutions
    said: dict[str, Any] = {"by": "olga", "why": "seen on chain"}
    wrong = NewPaid(message_id=f"wrong:{user}", tx_hash=tx_hash, **said)
    assert refused(lambda: resolutions.confirm(lost["id"], wrong)) == (409, "payout_not_matching")
    right = NewPaid(message_id=f"paid:{user}", tx_hash=tx_hash, gas_cost_wei=gas, **said)
    assert resolutions.confirm(paid["id"], right)[0].status == "applied"
    assert resolutions.confirm(paid["id"], right)[1], "a replay"
    resolutions.release(lost["id"], NewRelease(message_id=f"lost:{user}", **said))
    flows.requests()
    assert (flows.request(paid)["status"], flows.request(lost)["status"]) == ("completed", "failed")
    assert flows.balance(user)["available_wei"] == str(29 * ETHER)
    assert flows.drifts() == {}


def parked_by_conflict(flows: Flows, made: dict[str, Any]) -> None:
    """The relayer says of this payout's transfer that another sender did something with the key."""
    with transaction(flows.relayer.sessions) as session:
        end = text("UPDATE messages SET status = 'conflict', reason = CAST(:why AS jsonb) WHERE message_id = :name")
        why = '{"code": "nonce_taken", "detail": "another transaction used it"}'
        session.execute(end, {"name": f"payout:{made['id']}:send", "why": why})
    flows.requests()
