"""Payouts and deposits with everything failing around them: killed at every boundary, calls refused, lost, late and silent.

Each payout has an amount of its own, and what counts is the chain: one transfer for each that is completed, none for another.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from web3 import Web3

from apps.common.wei import ETHER
from tests.crash.flows.test_flows_disturbed import TIMEOUT_SEC, Act, disturbed
from tests.crash.flows.test_flows_killed import BOUNDARIES, SIGNING
from tests.support.cutting import Cutting, cutting, post, run_task
from tests.support.flows import Flows
from tests.support.payouts import allow, pay_out
from tests.support.ratchet import PUMP, REQUESTS, Watch

PAYEE = Web3.to_checksum_address("0x00000000000000000000000000000000DA7ED1ED")


@pytest.fixture
def house(flows: Flows, tmp_path: Path) -> Iterator[Cutting]:
    flows.deposit("ann", 90 * ETHER)
    allow(flows, "ann", PAYEE)
    with cutting(flows, tmp_path) as found:
        yield found


def pay_another(flows: Flows) -> None:
    """A payout of an amount that no other has."""
    pay_out(flows, "ann", ETHER + flows.made, PAYEE)


def live(watch: Watch, act: Act, run: Callable[[str], object]) -> None:
    """Payouts, one of which is taken back before it is handed over: `act` does by its name what is asked for, `run` a task."""
    flows = watch.flows
    flows.deposit("ann", 90 * ETHER)
    allow(flows, "ann", PAYEE)
    for _ in range(3):
        act("payout", partial(pay_another, flows))
    open_ = (
        "SELECT id FROM requests WHERE kind = 'payout' AND status = 'sending' AND intent IS NULL ORDER BY id LIMIT 1"
    )
    while not watch.ask(open_):
        run(REQUESTS)
    ((first,),) = watch.ask(open_)
    act("cancel", partial(flows.service.cancel, first))
    watch.settle(run)


def assert_paid(watch: Watch, *, at_least: int) -> None:
    """One transfer for each payout that is completed, and nothing else has left custody."""
    rows: list[tuple[str, Any]] = watch.ask("SELECT status, amount_wei FROM requests WHERE kind = 'payout'")
    paid = Counter((PAYEE.lower(), int(wei)) for status, wei in rows if status == "completed")
    assert watch.paid_on_chain() == paid
    assert set(paid.values()) == {1}
    assert len(paid) >= at_least
    assert watch.flows.desk.balance(PAYEE) == sum(wei for _, wei in paid)
    ends = Counter(status for status, _ in rows)
    watch.assert_right(**ends)


def test_payout__each_call_is_done_and_its_answer_lost_in_its_turn__one_transfer_each(flows: Flows) -> None:
    with disturbed(flows, "lost") as found:
        live(found.failing.watch, found.failing.work, found.failing.task)
        assert len(found.failing.gate.struck) >= 10
        assert_paid(found.failing.watch, at_least=3)


@pytest.mark.prove
@pytest.mark.parametrize("kind", ["error", "cut", "late", "silent"])
def test_payout__each_call_fails_in_its_turn__one_transfer_each(flows: Flows, kind: str) -> None:
    with disturbed(flows, kind, TIMEOUT_SEC if kind in {"late", "silent"} else 30.0) as found:
        live(found.failing.watch, found.failing.work, found.failing.task)
        assert {told.split()[0] for told in found.failing.gate.struck} >= {"ledger", "protocols", "relayer"}
        assert_paid(found.failing.watch, at_least=3)


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_payout__killed_at_every_boundary__one_transfer_each_and_the_cancelled_one_given_back(house: Cutting) -> None:
    def one(number: int) -> partial[None]:
        body = {"user_id": "ann", "to": PAYEE, "message_id": f"ann:{number}", "amount_wei": str(ETHER + number)}
        return partial(post, "/v1/payouts", body)

    number = 1
    while house.run(one(number), f"*:{number}") is not None:
        house.run(one(number))
        number += 1
    # Those are paid at once: killed at every boundary again, each of them, they would show nothing that the next two do not.
    house.watch.time_passes()
    house.flows.settle()
    for more in (number + 1, number + 2):
        house.run(one(more))
    ((last,),) = house.watch.ask("SELECT id FROM requests WHERE message_id = %s", f"ann:{number + 1}")
    house.cut("cancel", partial(post, f"/v1/requests/{last}/cancel"))
    house.settle()
    assert house.cuts.total() > 60
    assert house.cuts.keys() >= BOUNDARIES | SIGNING
    assert house.watch.ask("SELECT status FROM requests WHERE id = %s", last) == [("cancelled",)]
    assert_paid(house.watch, at_least=number + 1)


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_payout__comes_to_nothing_and_killed_at_every_boundary__given_back_once(house: Cutting) -> None:
    flows = house.flows
    for _ in range(2):
        pay_another(flows)
    while house.watch.ask("SELECT 1 FROM requests WHERE status = 'sending'"):
        house.task(REQUESTS)
    for (name,) in house.watch.ask("SELECT message_id FROM payout_transactions"):
        flows.context.relayer.post(f"/v1/transactions/{name}/cancel", {})
    house.settle()
    assert house.watch.paid_on_chain() == Counter()
    assert flows.balance("ann")["available_wei"] == str(90 * ETHER)
    house.watch.assert_right(cancelled=2)


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_payout__handed_over_by_two_workers_at_once__one_transfer_each(house: Cutting) -> None:
    for _ in range(3):
        pay_another(house.flows)

    def run(task: str) -> None:
        house.run(partial(run_task, task), times=1 if task == PUMP else 2)

    house.watch.settle(run)
    assert_paid(house.watch, at_least=3)


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_deposit__killed_at_every_boundary__booked_once(house: Cutting) -> None:
    desk = house.flows.desk

    def arrive(wei: int) -> str:
        sent = {"from": desk.user, "to": desk.operator, "value": hex(wei)}
        return str(desk.rpc("eth_sendTransaction", sent))

    number, hashes = 1, []
    while True:
        hashes.append(arrive(number))
        body = {"user_id": "bob", "message_id": f"bob:{number}", "tx_hash": hashes[-1]}
        if house.run(partial(post, "/v1/deposits", body), f"*:{number}") is None:
            break
        house.run(partial(post, "/v1/deposits", body))
        number += 1
    house.settle()
    assert number > 4
    query = "SELECT message_id, amount_wei FROM movements WHERE message_id LIKE 'deposit:0x%'"
    booked = house.watch.ask(query, database="ledger")
    assert {name: int(wei) for name, wei in booked} == {f"deposit:{tx}": n for n, tx in enumerate(hashes, 1)}
    assert house.flows.balance("bob")["available_wei"] == str(sum(range(1, number + 1)))
    house.watch.assert_right(completed=number)
