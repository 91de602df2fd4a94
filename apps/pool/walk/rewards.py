"""Settled rewards in the books. They have one path into the ledger: every `claim` and `settle` event of the reward index
becomes exactly one movement of its own name, in the order of the index's log; a loss may come off queued unstakes too.
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from apps.clients.ledger import movement
from apps.clients.rewards import stake_delta
from apps.clients.shapes.ledger import NewMovement
from apps.clients.shapes.rewards import Event
from apps.common.database import transaction
from apps.pool import effects
from apps.pool.context import PoolContext
from apps.pool.flows.lanes import user_lanes
from apps.pool.models import Batch, Request, Resolution, RewardCut, Walk
from apps.pool.states import BatchStatus, RequestKind, RequestStatus, ResolutionStatus
from apps.pool.walk.booking import WalkHalted, post_effects, write_walk

EVENTS_PER_PAGE = 200
EVENTS_TOGETHER = 2_000


def book_reward_events(context: PoolContext, walk: Walk, *, held: frozenset[str] = frozenset()) -> None:
    """Book every settled reward after the walk's event cursor. The caller holds the lane, and the users in `held`."""
    while True:
        settled, seen = _settled(context, walk)
        if seen == walk.reward_event_id:
            return
        users = {item.user_id for item in settled if item.user_id is not None} - held
        with user_lanes(context, walk.id, users):
            rows = [row for item in settled for row in _movements_of(context, walk.id, item)]
            post_effects(context, walk, rows)
            with transaction(context.sessions) as session:
                write_walk(context, session, walk, reward_event_id=seen)


def _settled(context: PoolContext, walk: Walk) -> tuple[list[Event], int]:
    """What was settled after the walk's event cursor, as much as is booked together, and the cursor behind it."""
    found: list[Event] = []
    after = walk.reward_event_id
    while True:
        page = context.rewards.settled(walk.id, after, EVENTS_PER_PAGE)
        found += page.items
        after = page.next
        if len(page.items) < EVENTS_PER_PAGE or len(found) >= EVENTS_TOGETHER:
            return found, after


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
