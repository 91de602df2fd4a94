"""What the walk books besides chain items: settled rewards, gas, and the dust of the operator's stETH.

Settled rewards have one path into the ledger: every `claim` and `settle` event of the reward index becomes exactly one
``<message_id>:book`` movement, in the order of the index's log.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from apps.clients.base import CallRefused, pages
from apps.clients.ledger import movement
from apps.clients.rewards import stake_delta
from apps.clients.shapes.history import HistoryItem
from apps.clients.shapes.ledger import NewMovement
from apps.clients.shapes.relayer import Transaction
from apps.clients.shapes.rewards import Accrual, Event, StakeDelta, StakeDeltasAnswer
from apps.common.database import transaction
from apps.flow.lease import LeaseLost
from apps.flow.row import seconds
from apps.pool import effects
from apps.pool.context import PoolContext
from apps.pool.flows.lanes import user_lanes
from apps.pool.models import Batch, Request, Resolution, RewardCut, Walk
from apps.pool.states import SIGNED_AND_OPEN, BatchStatus, RequestKind, RequestStatus, ResolutionStatus
from apps.pool.walk.halts import FACTS
from apps.pool.walk.models import HaltRecord

EVENTS_PER_PAGE = 200


@dataclass(frozen=True, kw_only=True)
class Item(HistoryItem):
    """An item of the share history. One `out_of_order` was missed, and is booked behind the walk's place."""

    out_of_order: bool = False


def item_of(found: HistoryItem, *, out_of_order: bool = False) -> Item:
    return Item(**vars(found), out_of_order=out_of_order)


def wei_of(item: HistoryItem) -> int:
    """The wei of an item that moves some; of a rebase, which moves none, it is not asked for."""
    assert item.amount_wei is not None
    return item.amount_wei


def shares_of(item: HistoryItem) -> int:
    """The shares of an item that moves some; of a claim or a rebase it is not asked for."""
    assert item.shares is not None
    return item.shares


REUSED = "message_id_reused"
OPEN_AT_THE_RELAYER = ",".join(sorted(SIGNED_AND_OPEN))

Answer = TypeVar("Answer")


class WalkHalted(Exception):
    """The books cannot follow the chain any further without ops; nothing is skipped.

    `facts` say where and about what (`apps.pool.walk.halts.FACTS`), for the operator who decides about it.
    """

    def __init__(self, code: str, detail: str, **facts: Any) -> None:
        self.code = code
        self.detail = detail
        self.facts = facts
        super().__init__(f"{code}: {detail}")

    def at(self, item: Item) -> "WalkHalted":
        """The same halt, at an item of the history."""
        place: HaltRecord = {
            "block_number": item.block_number,
            "log_index": item.log_index,
            "tx_hash": item.tx_hash,
            "kind": item.kind,
            "shares": None if item.shares is None else str(item.shares),
            "amount_wei": None if item.amount_wei is None else str(item.amount_wei),
        }
        self.facts = {**place, **self.facts}
        return self

    def record(self) -> HaltRecord:
        """The halt as it is kept on the walk."""
        return {"code": self.code, "detail": self.detail, **dict.fromkeys(FACTS), **self.facts}


def write_walk(context: PoolContext, session: Session, walk: Walk, /, **values: Any) -> None:
    """Change the walk while its lane is still held, extend the lane, and keep the object in step; raises `LeaseLost`."""
    changed = session.execute(
        update(Walk)
        .where(Walk.id == walk.id, Walk.lease_token == walk.lease_token)
        .values(
            updated_at=func.clock_timestamp(), lease_until=func.now() + seconds(context.settings.lease_sec), **values
        )
        .returning(Walk.id),
        execution_options={"synchronize_session": False},
    ).one_or_none()
    if changed is None:
        raise LeaseLost(f"walk {walk.id}")
    for name, value in values.items():
        setattr(walk, name, value)


def post_effects(context: PoolContext, walk: Walk, rows: Sequence[NewMovement]) -> None:
    """Post movements of the walk. One whose message_id stands for something else halts it, naming the id; once ops have
    decided so, that one is posted under a name of their resolution.

    Waiting cannot heal such a refusal, and nothing else of the walk may be booked past it.
    """
    try:
        context.ledger.post_batch(rows)
    except CallRefused as refusal:
        if refusal.code != REUSED:
            raise
        context.ledger.post_batch([_renamed(context, walk, row) for row in rows])


def move_stakes(context: PoolContext, walk: Walk, deltas: Sequence[StakeDelta]) -> None:
    """Stake deltas of the walk, as `post_effects` does movements."""
    try:
        context.rewards.stake_deltas(walk.id, deltas)
    except CallRefused as refusal:
        if refusal.code != REUSED:
            raise
        for delta in deltas:  # one by one, to find the one that is refused; the others keep their own names
            _under_some_name(context, walk, delta.message_id, partial(_one_delta, context, walk, delta))


def accrue(context: PoolContext, walk: Walk, name: str, reward_wei: int) -> Accrual:
    """The accrual of a rebase, as `post_effects` does movements."""

    def call(message_id: str) -> Accrual:
        return context.rewards.accrue(message_id, walk.id, reward_wei, context.settings.reward_source)

    return _under_some_name(context, walk, name, call)


def book_reward_events(context: PoolContext, walk: Walk, *, held: frozenset[str] = frozenset()) -> None:
    """Book every settled reward after the walk's event cursor. The caller holds the lane, and the users in `held`."""
    while True:
        items = context.rewards.events(walk.id, walk.reward_event_id, EVENTS_PER_PAGE).items
        if not items:
            return
        settled = [item for item in items if item.kind in {"claim", "settle"} and item.claimed_wei != 0]
        users = {item.user_id for item in settled if item.user_id is not None} - held
        with user_lanes(context, walk.id, users):
            rows = [row for item in settled for row in _movements_of(context, walk.id, item)]
            post_effects(context, walk, rows)
            with transaction(context.sessions) as session:
                write_walk(context, session, walk, reward_event_id=items[-1].id)


def gas_target(context: PoolContext, horizon: int) -> int:
    """The highest block up to which the relayer has settled everything it sent; at most the horizon.

    Each transaction still open at the relayer carries `observed_block`: the highest block at the relayer's horizon at
    which its nonce was certainly unused. One signed after this question cannot be in a block that was at the horizon
    before it. One question for all open statuses: between two questions a transaction could pass from one to the other.
    """
    return min([horizon, *(item.observed_block or 0 for item in _all(context, status=OPEN_AT_THE_RELAYER))])


def book_gas(context: PoolContext, walk: Walk, up_to_block: int) -> None:
    """Book the gas of every settled transaction up to a block, by signer and nonce."""
    start = int(walk.gas_cursor or 0)
    if up_to_block <= start:
        return
    rows = [
        movement(
            effects.gas(item.sender, item.nonce),
            "gas_spent",
            walk.id,
            None,
            item.gas_cost_wei,
            reference=item.tx_hash,
        )
        for item in _all(context, from_block=start + 1, to_block=up_to_block)
        if item.nonce is not None and item.gas_cost_wei is not None and item.gas_cost_wei > 0
    ]
    post_effects(context, walk, rows)
    with transaction(context.sessions) as session:
        write_walk(context, session, walk, gas_cursor=str(up_to_block))


def _all(context: PoolContext, **query: str | int) -> list[Transaction]:
    found = pages(lambda after: context.relayer.transactions(limit=200, after=after, **query))
    return [item for page in found for item in page]


def _renamed(context: PoolContext, walk: Walk, row: NewMovement) -> NewMovement:
    """A movement under the name that it can be posted under."""
    known = context.ledger.movement(row.message_id)
    if known is None or all(getattr(known, name) == value for name, value in vars(row).items()):
        return row
    return replace(row, message_id=_new_name(context, walk, row.message_id, "ledger"))


def _one_delta(context: PoolContext, walk: Walk, delta: StakeDelta, message_id: str) -> StakeDeltasAnswer:
    return context.rewards.stake_deltas(walk.id, [replace(delta, message_id=message_id)])


def _under_some_name(context: PoolContext, walk: Walk, name: str, call: Callable[[str], Answer]) -> Answer:
    try:
        return call(name)
    except CallRefused as refusal:
        if refusal.code != REUSED:
            raise
        return call(_new_name(context, walk, name, refusal.service))


def _new_name(context: PoolContext, walk: Walk, effect: str, service: str) -> str:
    """What ops have decided that a refused effect is called; halts the walk until they have."""
    with transaction(context.sessions) as session:
        decided = session.scalars(
            select(Resolution)
            .where(
                Resolution.pool_id == walk.id,
                Resolution.action == "rename_effect",
                Resolution.effect == effect,
                Resolution.status.in_((ResolutionStatus.APPROVED, ResolutionStatus.APPLIED)),
            )
            .with_for_update()
        ).first()
        if decided is None:
            detail = f"{effect} stands for something else at {service}."
            raise WalkHalted("booking_refused", detail, effect=effect)
        if decided.status == ResolutionStatus.APPROVED:
            decided.status, decided.applied_at = ResolutionStatus.APPLIED, func.clock_timestamp()
        return effects.resolution_effect(decided.id)


def _movements_of(context: PoolContext, pool_id: str, event: Event) -> list[NewMovement]:
    claimed = event.claimed_wei
    source = event.message_id
    booking = effects.reward_book(source)
    user_id = event.user_id
    assert user_id is not None  # claims and settlements are of a user
    if claimed > 0:
        return [movement(booking, "reward_compound", pool_id, user_id, claimed)]
    rows = []
    exiting = -event.exiting_delta_wei
    covered = 0
    if exiting > 0:
        cuts = _cuts(context, pool_id, event, exiting)
        covered = exiting - sum(amount for _, amount in cuts)
        for request_id, amount in cuts:
            name = effects.reward_cut(source, request_id)
            rows.append(movement(name, "unstake_cancel", pool_id, user_id, amount, reference=request_id))
    if covered > 0:
        rows.append(movement(effects.reward_covered(source), "reward_loss_covered", pool_id, None, covered))
        # The index has taken it off the user's exiting wei; the books leave those whole.
        context.rewards.stake_deltas(pool_id, [stake_delta(effects.reward_covered(source), user_id, 0, covered)])
    if -claimed > covered:
        rows.append(movement(booking, "reward_loss", pool_id, user_id, -claimed - covered))
    return rows


def _cuts(context: PoolContext, pool_id: str, event: Event, exiting: int) -> Sequence[tuple[str, int]]:
    """Decide once, and keep, which unstakes bear what the user's staked wei could not: queued ones first, newest first.

    A batch that has left the index already is not reached: the index then holds the exiting weight of queued ones only.
    """
    with transaction(context.sessions) as session:
        known = session.execute(
            select(RewardCut.request_id, RewardCut.amount_wei).where(RewardCut.event_message_id == event.message_id)
        ).all()
        if known:
            return [(row.request_id, row.amount_wei) for row in known]
        rows = session.scalars(
            select(Request)
            .where(
                Request.pool_id == pool_id,
                Request.user_id == event.user_id,
                Request.kind == RequestKind.UNSTAKE,
                or_(Request.status.in_((RequestStatus.QUEUED, RequestStatus.BATCHED)), _parked_before_leaving()),
            )
            .order_by(Request.status.desc(), Request.queued_at.desc(), Request.id.desc())
            .with_for_update()
        ).all()
        cuts: list[tuple[str, int]] = []
        for row in rows:
            cut = min(exiting, int(row.amount_wei or 0))
            if cut > 0:
                cuts.append((row.id, cut))
                row.amount_wei = int(row.amount_wei or 0) - cut
                exiting -= cut
        if exiting > 0 and not _covered(session, pool_id, event.message_id):
            raise WalkHalted(
                "loss_unplaced",
                f"{exiting} wei of a loss fit none of the user's queued unstakes.",
                effect=event.message_id,
                amount_wei=str(exiting),
            )
        for request_id, cut in cuts:
            session.execute(
                insert(RewardCut).values(event_message_id=event.message_id, request_id=request_id, amount_wei=cut)
            )
        return cuts


def _covered(session: Session, pool_id: str, event_message_id: str) -> bool:
    """Whether ops have decided that the company bears what fits none of the user's unstakes."""
    found = session.scalars(
        select(Resolution).where(
            Resolution.pool_id == pool_id,
            Resolution.action == "cover_loss",
            Resolution.halt["effect"].astext == event_message_id,
            Resolution.status.in_((ResolutionStatus.APPROVED, ResolutionStatus.APPLIED)),
        )
    ).first()
    if found is not None and found.status == ResolutionStatus.APPROVED:
        found.status, found.applied_at = ResolutionStatus.APPLIED, func.clock_timestamp()
    return found is not None


def _parked_before_leaving() -> ColumnElement[bool]:
    """Whether a request's batch was parked with its weight still in the index, where it bears losses like any other."""
    parked = select(Batch.id).where(
        Batch.id == Request.batch_id,
        Batch.status == BatchStatus.NEEDS_ATTENTION,
        Batch.parked_status == BatchStatus.BATCHED,
    )
    return (Request.status == RequestStatus.NEEDS_ATTENTION) & parked.correlate(Request).exists()
