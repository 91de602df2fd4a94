"""Payouts from the POST to the books: paid once, given back where they certainly had no effect, refused by name."""

from typing import Any

from sqlalchemy import text
from web3 import Web3

from apps.clients.shapes.payouts import NewPaid, NewPayout
from apps.clients.shapes.walk import NewRelease
from apps.common.database import transaction
from apps.common.shapes import dump
from apps.common.wei import ETHER
from apps.pool.feed import number_events
from tests.support.flows import Flows
from tests.support.payouts import pay_out, payee, refused, sql
from tests.support.protocols import POOL


def relayer_cancel(flows: Flows, made: dict[str, Any]) -> None:
    flows.context.relayer.post(f"/v1/transactions/payout:{made['id']}:send/cancel", {})


def test_payout__to_the_end__paid_once_and_the_books_are_the_chains_at_every_block(flows: Flows, user: str) -> None:
    made = pay_out(flows, user, 3 * ETHER, payee(user))
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
    assert refused(lambda: pay_out(flows, user, 2 * ETHER, payee(user))) == (409, "insufficient_balance")
    assert flows.balance(user)["available_wei"] == str(ETHER)
    flows.ledger.post_movement(f"back:{user}", "stake_release", POOL, user, 29 * ETHER)


# ---- four eyes ----


def test_payout__above_four_eyes__waits_for_another_person_and_is_paid(flows: Flows, user: str) -> None:
    made = pay_out(flows, user, 11 * ETHER, payee(user), by="olga")
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
    said_no = pay_out(flows, user, 11 * ETHER, payee(user))
    done = dump(flows.service.payouts.reject(said_no["id"], "paul"))
    assert (done["status"], done["reason"]["code"], done["payout"]["decided_by"]) == (
        "failed",
        "approval_refused",
        "paul",
    )
    taken_back = pay_out(flows, user, 11 * ETHER, payee(user))
    assert flows.service.cancel(taken_back["id"]).status == "cancelled"
    assert flows.balance(user)["available_wei"] == str(30 * ETHER)
    assert flows.drifts() == {}


# ---- what the relayer says ----


def test_payout__cancelled_at_the_relayer__given_back_once_that_is_final(flows: Flows, user: str) -> None:
    made = pay_out(flows, user, ETHER, payee(user))
    flows.requests()
    assert flows.request(made)["status"] == "sending"
    assert refused(lambda: flows.service.cancel(made["id"])) == (409, "not_cancellable"), "its transfer is stored"
    flows.requests()
    assert refused(lambda: flows.service.cancel(made["id"])) == (409, "not_cancellable")
    relayer_cancel(flows, made)
    flows.settle()
    done = flows.request(made)
    assert (done["status"], done["reason"]["code"]) == ("cancelled", "cancelled_by_caller")
    assert flows.balance(user)["available_wei"] == str(30 * ETHER)
    assert flows.drifts() == {}


def test_payout__reverted_on_chain__given_back_and_its_gas_booked(flows: Flows, user: str) -> None:
    made = pay_out(flows, user, ETHER, payee(user))
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


def test_payout__whose_name_somebody_else_has_used__parked_released_and_the_theft_is_seen(
    flows: Flows, user: str
) -> None:
    made = pay_out(flows, user, ETHER, payee(user))
    flows.requests()
    theft = {"to": payee("thief"), "data": "0x", "value_wei": str(2 * ETHER), "purpose": "payout", "gas_limit": 21_000}
    flows.context.relayer.post("/v1/transactions", {"message_id": f"payout:{made['id']}:send", **theft})
    flows.requests()
    assert (flows.request(made)["status"], flows.request(made)["reason"]["code"]) == (
        "needs_attention",
        "payout_differs",
    )
    flows.settle()
    assert flows.desk.balance(payee("thief")) == 2 * ETHER
    said = NewRelease(message_id=f"stolen:{user}", by="olga", why="not ours")
    assert flows.service.payout_resolutions.release(made["id"], said)[0].status == "applied"
    flows.requests()
    assert flows.request(made)["status"] == "failed"
    assert flows.balance(user)["available_wei"] == str(30 * ETHER)
    assert flows.drifts() == {"eth": -2 * ETHER}
    flows.ledger.post_movement(f"borne:{user}", "eth_lost", POOL, None, 2 * ETHER)  # by the company, out of its float
    assert flows.drifts() == {}


# ---- when nothing leaves ----


def test_payout__while_the_books_cannot_be_trusted__waits_and_goes_on(flows: Flows, user: str) -> None:
    made = pay_out(flows, user, ETHER, payee(user))
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
    made = pay_out(flows, user, ETHER, payee(user))
    flows.settle()
    number_events(flows.context.sessions)
    told = sql(flows, "SELECT status FROM request_events WHERE request_id = :id ORDER BY sequence", id=made["id"])
    assert [status for (status,) in told] == ["reserving", "sending", "confirming", "completed"]


# ---- the key in other hands, which the relayer rightly stops for: last ----


def test_payout__conflict__never_given_back_by_itself_and_each_way_out_is_checked(flows: Flows, user: str) -> None:
    paid, lost = (pay_out(flows, user, wei, payee(user)) for wei in (ETHER, 2 * ETHER))
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
    assert flows.request(paid)["transactions"][0]["tx_hash"] == tx_hash
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
