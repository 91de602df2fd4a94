"""What the walk books besides chain items: settled rewards, gas, and the dust of the operator's stETH.

Settled rewards have one path into the ledger: every `claim` and `settle` event of the reward index becomes exactly one
``<message_id>:book`` movement, in the order of the index's log.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from apps.clients.ledger import movement
from apps.common.database import transaction
from apps.pool.context import PoolContext
from apps.pool.lanes import user_lanes
from apps.pool.leases import LeaseLost, seconds
from apps.pool.models import Batch, Request, RewardCut, Walk

EVENTS_PER_PAGE = 200
OPEN_AT_THE_RELAYER = "signed,broadcast,mined"


class WalkHalted(Exception):
    """The books cannot follow the chain any further without ops; nothing is skipped."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(f"{code}: {detail}")


def write_walk(context: PoolContext, session: Session, walk: Walk, /, **values: Any) -> None:
    """Change the walk while its lane is still held, extend the lane, and keep the object in step."""
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


def book_reward_events(context: PoolContext, walk: Walk, *, held: frozenset[str] = frozenset()) -> None:
    """Book every settled reward after the walk's event cursor. The caller holds the lane, and the users in `held`."""
    while True:
        items = context.rewards.events(walk.id, walk.reward_event_id, EVENTS_PER_PAGE)["items"]
        if not items:
            return
        settled = [item for item in items if item["kind"] in {"claim", "settle"} and int(item["claimed_wei"]) != 0]
        users = {item["user_id"] for item in settled} - held
        with user_lanes(context.sessions, walk.id, users, context.settings.lease_sec):
            rows = [row for item in settled for row in _movements_of(context, walk.id, item)]
            context.ledger.post_batch(rows)
            with transaction(context.sessions) as session:
                write_walk(context, session, walk, reward_event_id=int(items[-1]["id"]))


def gas_target(context: PoolContext, horizon: int) -> int:
    """The highest block up to which the relayer has settled everything it sent; at most the horizon.

    Each transaction still open at the relayer carries `observed_block`: the highest block at the relayer's horizon at
    which its nonce was certainly unused. One signed after this question cannot be in a block that was at the horizon
    before it. One question for all open statuses: between two questions a transaction could pass from one to the other.
    """
    return min([horizon, *(int(item["observed_block"] or 0) for item in _all(context, status=OPEN_AT_THE_RELAYER))])


def book_gas(context: PoolContext, walk: Walk, up_to_block: int) -> None:
    """Book the gas of every settled transaction up to a block, by signer and nonce."""
    start = int(walk.gas_cursor or 0)
    if up_to_block <= start:
        return
    rows = [
        movement(
            f"gas:{item['from']}:{item['nonce']}",
            "gas_spent",
            walk.id,
            None,
            int(item["gas_cost_wei"]),
            reference=item["tx_hash"],
        )
        for item in _all(context, from_block=start + 1, to_block=up_to_block)
        if item["gas_cost_wei"] is not None and int(item["gas_cost_wei"]) > 0
    ]
    context.ledger.post_batch(rows)
    with transaction(context.sessions) as session:
        write_walk(context, session, walk, gas_cursor=str(up_to_block))


def _all(context: PoolContext, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after = None
    while True:
        answer = context.relayer.transactions(limit=200, after=after, **query)
        found.extend(answer["items"])
        after = answer["next"]
        if after is None:
            return found


def _movements_of(context: PoolContext, pool_id: str, event: dict[str, Any]) -> list[dict[str, Any]]:
    claimed = int(event["claimed_wei"])
    booking = f"{event['message_id']}:book"
    user_id = event["user_id"]
    if claimed > 0:
        return [movement(booking, "reward_compound", pool_id, user_id, claimed)]
    rows = []
    exiting = -int(event["exiting_delta_wei"])
    if exiting > 0:
        for request_id, amount in _cuts(context, pool_id, event, exiting):
            name = f"{event['message_id']}:cut:{request_id}"
            rows.append(movement(name, "unstake_cancel", pool_id, user_id, amount, reference=request_id))
    rows.append(movement(booking, "reward_loss", pool_id, user_id, -claimed))
    return rows


def _cuts(context: PoolContext, pool_id: str, event: dict[str, Any], exiting: int) -> Sequence[tuple[str, int]]:
    """Decide once, and keep, which unstakes bear what the user's staked wei could not: queued ones first, newest first.

    A batch that has left the index already is not reached: the index then holds the exiting weight of queued ones only.
    """
    with transaction(context.sessions) as session:
        known = session.execute(
            select(RewardCut.request_id, RewardCut.amount_wei).where(RewardCut.event_message_id == event["message_id"])
        ).all()
        if known:
            return [(row.request_id, row.amount_wei) for row in known]
        rows = session.scalars(
            select(Request)
            .where(
                Request.pool_id == pool_id,
                Request.user_id == event["user_id"],
                Request.kind == "unstake",
                or_(Request.status.in_(("queued", "batched")), _parked_before_leaving()),
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
        if exiting > 0:
            raise WalkHalted("loss_unplaced", f"{exiting} wei of a loss fit none of the user's queued unstakes.")
        for request_id, cut in cuts:
            session.execute(
                insert(RewardCut).values(event_message_id=event["message_id"], request_id=request_id, amount_wei=cut)
            )
        return cuts


def _parked_before_leaving() -> ColumnElement[bool]:
    """Whether a request's batch was parked with its weight still in the index, where it bears losses like any other."""
    parked = select(Batch.id).where(
        Batch.id == Request.batch_id,
        Batch.status == "needs_attention",
        Batch.context["parked_status"].astext == "batched",
    )
    return (Request.status == "needs_attention") & parked.correlate(Request).exists()
