"""One stake's impossibility is its own: batches fit every limit, and whoever waits says for what."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from apps.clients.base import CallRefused
from apps.clients.protocols import ProtocolsClient
from apps.clients.shapes.pool import BatchesQuery, QuoteQuery
from apps.clients.shapes.relayer import Limits
from apps.common.database import transaction
from apps.common.errors import InvalidInput
from apps.common.shapes import dump
from apps.common.wei import ETHER
from apps.devnet.deployment import set_balance
from apps.pool.flows import batching
from apps.pool.models import Batch
from apps.pool.quotes.service import Quotes
from relayer.signing.signers import parse_keys
from relayer.signing.transactions import Keyring
from tests.support.flows import Flows, running_flows
from tests.support.lido import Desk
from tests.support.protocols import KEY, NOBODY, POOL
from tests.support.raw import raw
from tests.support.relayer import CUSTODY_KEY, OPERATOR_KEY


@pytest.fixture
def flows(
    desk: Desk, make_database: Callable[[str], str], request: pytest.FixtureRequest
) -> Iterator[Flows]:  # fmt: skip
    with running_flows(desk, make_database, **dict(getattr(request, "param", {}))) as found:
        yield found


def queue(flows: Flows, **stakes: int) -> dict[str, dict[str, Any]]:
    """A stake of so many ETH of each, in this order."""
    asked = {}
    for user, ether in stakes.items():
        flows.deposit(user, ether * ETHER)
        asked[user] = flows.ask("stake", user, ether * ETHER)
    return asked


def turn(flows: Flows, times: int = 8) -> None:
    for _ in range(times):
        flows.turn()


def standing(flows: Flows, asked: dict[str, dict[str, Any]]) -> dict[str, str | None]:
    """Status of each, or the reason's code of those that are queued."""
    found = {user: flows.request(made) for user, made in asked.items()}
    return {
        user: str((item["reason"] or {}).get("code")) if item["status"] == "queued" else item["status"]
        for user, item in found.items()
    }


def test_stake__limit_lowered_below_it__skipped_with_its_reason_and_goes_when_the_limit_is_raised(flows: Flows) -> None:
    flows.desk.oracle.set_stake_limit(100 * ETHER, 100)
    asked = queue(flows, ann=80, bob=10, cat=10)
    flows.desk.oracle.set_stake_limit(50 * ETHER, 100)
    turn(flows)
    assert standing(flows, asked) == {"ann": "stake_above_limit", "bob": "completed", "cat": "completed"}
    waiting = flows.request(asked["ann"])
    assert str(50 * ETHER) in waiting["reason"]["detail"]
    assert waiting["next"] == {"step": "batch", "due_at": None}
    told = len(waiting["timeline"])
    turn(flows, 3)
    assert len(flows.request(asked["ann"])["timeline"]) == told, "said once"
    flows.desk.oracle.set_stake_limit(100 * ETHER, 1)
    flows.settle()
    assert standing(flows, asked)["ann"] == "completed"
    assert flows.drifts() == {}


def test_stake__above_the_limit_for_good__cancel_gives_it_back(flows: Flows) -> None:
    flows.desk.oracle.set_stake_limit(100 * ETHER, 100)
    asked = queue(flows, ann=80)
    flows.desk.oracle.set_stake_limit(50 * ETHER, 100)
    turn(flows, 2)
    assert flows.service.cancel(asked["ann"]["id"]).status == "cancelled"
    assert flows.balance("ann")["available_wei"] == str(80 * ETHER)


@pytest.mark.parametrize("flows", [{"relayer": {"max_value_per_tx_wei": 30 * ETHER}}], indirect=True)
def test_stakes__together_above_the_relayers_cap__several_batches_and_all_complete(flows: Flows) -> None:
    asked = queue(flows, ann=20, bob=20, cat=10, dan=25)
    flows.settle()
    assert set(standing(flows, asked).values()) == {"completed"}
    batches = dump(flows.reads.batches(BatchesQuery()))["items"]
    assert {batch["status"] for batch in batches} == {"completed"}
    assert max(int(batch["amount_wei"]) for batch in batches) <= 30 * ETHER
    assert flows.drifts() == {}


@pytest.mark.parametrize("flows", [{"relayer": {"max_value_per_tx_wei": 30 * ETHER}}], indirect=True)
def test_stake__alone_above_the_relayers_cap__refused_at_post_with_the_remedy(flows: Flows) -> None:
    flows.deposit("ann", 40 * ETHER)
    with pytest.raises(InvalidInput) as refused:
        flows.ask("stake", "ann", 31 * ETHER)
    text = str(refused.value.errors)
    assert "split" in text
    assert str(30 * ETHER) in text
    assert flows.balance("ann")["available_wei"] == str(40 * ETHER)
    quote = dump(Quotes(flows.context).quote(QuoteQuery(kind="stake", amount_wei=31 * ETHER)))
    assert (quote["maximum_wei"], quote["reason"]["code"]) == (str(30 * ETHER), "stake_above_cap")


def test_stakes__cap_lowered_while_their_batch_is_on_its_way__sent_in_halves_and_only_the_one_too_large_fails(
    flows: Flows,
) -> None:
    """The relayer's cap is read when a batch is opened; what it says later must not end the members."""
    asked = queue(flows, ann=20, bob=20, cat=90)
    flows.batching()
    lower_cap(flows, 30 * ETHER)
    turn(flows, 14)
    assert standing(flows, asked) == {"ann": "completed", "bob": "completed", "cat": "stake_above_cap"}
    lower_cap(flows, 10_000 * ETHER)
    flows.settle()
    assert set(standing(flows, asked).values()) == {"completed"}
    assert flows.drifts() == {}


@pytest.mark.parametrize(
    "flows", [{"relayer": {"max_value_per_day_wei": 50 * ETHER, "max_value_per_tx_wei": 50 * ETHER}}], indirect=True
)
def test_stakes__the_days_cap_is_used_up__wait_with_that_reason_and_smaller_ones_had_their_turn(flows: Flows) -> None:
    asked = queue(flows, ann=40, bob=20)
    turn(flows)
    assert standing(flows, asked) == {"ann": "completed", "bob": "daily_cap"}
    assert flows.balance("bob")["reserved_wei"] == str(20 * ETHER)


def test_stakes__relayer_tells_no_limits__what_it_rejects_is_split_until_it_passes(flows: Flows) -> None:
    asked = queue(flows, ann=20, bob=20, cat=20, dan=20)
    lower_cap(flows, 30 * ETHER)

    def not_told() -> Limits:
        raise CallRefused("relayer", 404, "not_found", "There is no such address.")  # a relayer of an earlier release

    flows.context.relayer.limits = not_told  # type: ignore[method-assign]
    flows.settle()
    assert set(standing(flows, asked).values()) == {"completed"}
    assert flows.drifts() == {}


def test_stakes__relayer_is_not_set_up__queued_again_with_the_reason_and_nobody_fails(flows: Flows) -> None:
    asked = queue(flows, ann=20)
    rules = flows.relayer.rules
    object.__setattr__(flows.relayer, "rules", type(rules)(None, None, None, None, 10**30))
    for _ in range(10):
        flows.turn()
        if standing(flows, asked) == {"ann": "not_configured"}:
            break
    else:
        raise AssertionError(standing(flows, asked))
    object.__setattr__(flows.relayer, "rules", rules)
    flows.settle()
    assert set(standing(flows, asked).values()) == {"completed"}


def test_stakes__funded_from_custody_and_then_returned_to_the_queue__their_ether_is_not_moved_again(
    desk: Desk, make_database: Callable[[str], str]
) -> None:
    """Custody holds what the users deposited and no more: moved twice, it would be somebody else's."""
    keys = Keyring([parse_keys(f"{OPERATOR_KEY},{CUSTODY_KEY}")])
    set_balance(desk.web3, desk.custody, 10**17)  # its own gas
    with running_flows(desk, make_database, custody=desk.custody, relayer={"keyring": keys}) as flows:
        flows.ledger.post_movement("gas:custody", "gas_float", POOL, None, 10**17)
        asked = queue(flows, ann=20, bob=20, cat=20)
        flows.batching()
        for _ in range(12):  # until it is funded and its submit is built
            if submit_stored(flows):
                break
            flows.batches()
            flows.pump()
        lower_cap(flows, 30 * ETHER)
        flows.settle()
        assert set(standing(flows, asked).values()) == {"completed"}
        moved = [
            item for item in raw(flows.context.relayer).transactions(limit=200)["items"] if item["purpose"] == "fund"
        ]
        assert sum(int(item["value_wei"]) for item in moved) == 60 * ETHER
        assert flows.drifts() == {}


def submit_stored(flows: Flows) -> bool:
    with transaction(flows.context.sessions) as session:
        return session.scalar(select(Batch.id).where(Batch.status == "submitting")) is not None


def test_stakes__protocols_does_not_answer__say_so_and_go_on_when_it_does(
    flows: Flows,
) -> None:
    asked = queue(flows, ann=20)
    cut_off = replace(flows.context, protocols=ProtocolsClient(NOBODY, KEY, 1.0))
    for _ in range(3):
        assert batching.open_due_batches(cut_off) == 0
    assert standing(flows, asked) == {"ann": "protocols_unavailable"}
    assert len(flows.request(asked["ann"])["timeline"]) == 3, "said once"
    flows.settle()
    assert standing(flows, asked) == {"ann": "completed"}


def lower_cap(flows: Flows, wei: int) -> None:
    """Another MAX_VALUE_PER_TX_WEI, as after a restart of the relayer."""
    relayer = flows.relayer
    object.__setattr__(relayer.rules, "max_value_per_tx_wei", wei)
    object.__setattr__(relayer.settings, "max_value_per_tx_wei", wei)
