"""Claims that cannot be made: slower each time, with their reason, an alarm, and nobody else held up."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import func, select

from apps.clients.shapes.protocols import UnsignedTransaction
from apps.common.database import transaction
from apps.common.wei import ETHER
from apps.pool.feed import number_events
from apps.pool.flows.withdrawal_claim import poll_open
from apps.pool.models import Batch, RequestEvent, Withdrawal
from tests.support.flows import Flows, running_flows
from tests.support.lido import Desk

CUSTODY = "0x00000000000000000000000000000000C0FFEE01"
REFUSES, TAKES = "0x60006000fd", "0x00"


@pytest.fixture
def flows(desk: Desk, make_database: Callable[[str], str]) -> Iterator[Flows]:
    with running_flows(desk, make_database, custody=CUSTODY) as found:
        yield found


def leave(flows: Flows, *users: str) -> list[dict[str, Any]]:
    """Stake and unstake an ETH of each, finalized."""
    for user in users:
        flows.deposit(user, ETHER)
        flows.ask("stake", user, ETHER)
    flows.settle()
    asked = [flows.ask("unstake", user, ETHER) for user in users]
    flows.settle()
    flows.desk.oracle.finalize()
    return asked


def attempt(flows: Flows) -> None:
    """One poll and what follows from it, whatever the pauses."""
    flows.claims()
    for _ in range(3):
        flows.batches()
        flows.pump()


def pauses(flows: Flows) -> list[float]:
    with transaction(flows.context.sessions) as session:
        return [
            float(seconds or 0)
            for seconds in session.scalars(select(func.extract("epoch", Withdrawal.claim_after - func.now())))
        ]


def test_claim__custody_takes_no_ether__reason_longer_pauses_and_heals(flows: Flows) -> None:
    (asked,) = leave(flows, "ann")
    flows.desk.rpc("anvil_setCode", CUSTODY, REFUSES)
    waited: list[float] = []
    for number in range(6):
        attempt(flows)
        found = flows.request(asked)
        assert (found["status"], found["reason"]["code"]) == ("waiting", "custody_refuses_eth")
        assert found["next"]["step"] == "pay"
        waited += pauses(flows)
        assert poll_open(flows.context) == 0, "not before its time"
        if number == 0:
            told = events(flows)
    assert events(flows) == told, "said once, however often it is tried"
    assert waited == sorted(waited)
    assert waited[-1] > 8 * waited[0]
    with transaction(flows.context.sessions) as session:
        assert session.scalars(select(Withdrawal.claim_failures)).one() == 6
        ends = session.scalars(select(Batch.reason["code"].astext).where(Batch.kind == "claim")).all()
    assert set(ends) == {"custody_refuses_eth"}
    flows.desk.rpc("anvil_setCode", CUSTODY, TAKES)
    attempt(flows)
    flows.settle()
    assert flows.request(asked)["status"] == "completed"


def test_claim__custody_begins_to_refuse_after_the_claim_was_built__same_reason(flows: Flows) -> None:
    (asked,) = leave(flows, "ann")
    flows.claims()
    flows.batches()  # built while custody took it
    flows.desk.rpc("anvil_setCode", CUSTODY, REFUSES)
    for _ in range(12):  # while the relayer holds something in flight for unmined, it asks again before it rejects
        flows.batches()
        flows.pump()
        flows.desk.oracle.mine()
        found = flows.request(asked)
        if found["status"] == "waiting":
            break
    assert (found["status"], found["reason"]["code"]) == ("waiting", "custody_refuses_eth")
    flows.desk.rpc("anvil_setCode", CUSTODY, TAKES)
    attempt(flows)
    flows.settle()
    assert flows.request(asked)["status"] == "completed"


def test_claim__one_of_many_makes_it_revert_and_nobody_knows_which__found_in_halves_and_the_others_are_paid(
    flows: Flows,
) -> None:
    asked = leave(flows, "ann", "bob", "cat", "dan", "eve")
    protocols = flows.context.protocols
    build = protocols.build_claim
    bad = flows.request(asked[2])["withdrawals"][0]["withdrawal_id"]

    def breaks(withdrawal_ids: Sequence[int]) -> UnsignedTransaction:
        more = range(10**6, 10**6 + 100) if bad in withdrawal_ids else ()
        return build([*withdrawal_ids, *more])

    protocols.build_claim = breaks  # type: ignore[method-assign]
    for _ in range(4):
        attempt(flows)
        flows.walking()
    flows.desk.oracle.mine()
    flows.walking()
    standing = [flows.request(made)["status"] for made in asked]
    assert standing == ["completed", "completed", "waiting", "completed", "completed"]
    assert flows.request(asked[2])["reason"]["code"] == "too_many_elements"
    protocols.build_claim = build  # type: ignore[method-assign]
    attempt(flows)
    flows.settle()
    assert flows.request(asked[2])["status"] == "completed"


def events(flows: Flows) -> int:
    number_events(flows.context.sessions)
    with transaction(flows.context.sessions) as session:
        return session.scalar(select(func.count()).select_from(RequestEvent)) or 0
