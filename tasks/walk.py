"""The walk: rewards and books in chain order, one serial lane per pool, each item of the operator's history once.

Distribution walks the history from its cursor to the money horizon in (block, log index) order. An item that cannot be
booked yet stops the walk, it is never skipped; a fault that waiting cannot heal halts it with an alarm.
"""

from typing import Any

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from apps.clients.base import CallFailed, CallRefused
from apps.clients.ledger import movement
from apps.common.database import transaction
from apps.pool.context import PoolContext
from apps.pool.lanes import LaneBusy
from apps.pool.leases import LeaseLost, flow_event, reason, seconds
from apps.pool.models import WHOLE_BLOCK, ProtocolMetric, Walk
from tasks import celery
from tasks.booking import WalkHalted, book_gas, book_reward_events, gas_target, write_walk
from tasks.engine import worker_context
from tasks.reconciliation import reconcile_in_lane
from tasks.schedules import fires
from tasks.walk_items import ITEM_STEPS
from tasks.walk_lane import walk_lane

log = structlog.get_logger(__name__)

ITEMS_PER_PAGE = 200
AGAIN_SEC = 30.0
SOON_SEC = 0.3
DUST_PER_OPERATION_WEI = 2
DUST_BASE_WEI = 10**9


@celery.task(name="tasks.walk.run")
def run(schedule: str | None = None) -> int:
    """Walk the default pool; what beat fires."""
    context = worker_context()
    return walk_pool(context, context.settings.pool_id) if fires(context, schedule) else 0


@celery.task(name="tasks.walk.run_pool")
def run_pool(pool_id: str | None = None) -> int:
    """Walk one pool; what the sweep and finished transactions hint at."""
    context = worker_context()
    return walk_pool(context, pool_id or context.settings.pool_id)


def walk_pool(context: PoolContext, pool_id: str) -> int:
    """Walk to the horizon and return the items booked; 0 when somebody else is in the lane, and the walk is due again."""
    try:
        with walk_lane(context, pool_id) as walk:
            booked = _walk_and_note(context, walk)
            if _reconciliation_wanted(context, pool_id):
                reconcile_in_lane(context, walk)
            return booked
    except LaneBusy:
        # Whoever is in there may be no walk, or one that has asked for the history already: the sweep sends the next.
        with transaction(context.sessions) as session:
            session.execute(update(Walk).where(Walk.id == pool_id).values(next_run_at=func.now(), hinted_at=None))
        return 0
    except LeaseLost:
        return 0


def _reconciliation_wanted(context: PoolContext, pool_id: str) -> bool:
    """Asked for by a rebase that was just walked, or by the schedule while this lane was taken."""
    with transaction(context.sessions) as session:
        return bool(session.scalar(select(Walk.reconciliation_wanted).where(Walk.id == pool_id)))


def _walk_and_note(context: PoolContext, walk: Walk) -> int:
    try:
        booked = _to_horizon(context, walk)
    except LaneBusy:
        _note(context, walk, "walking", None, SOON_SEC)
        return 0
    except WalkHalted as halt:
        log.error("walk_halted", pool_id=walk.id, code=halt.code, detail=halt.detail)
        _note(context, walk, "halted", reason(halt.code, halt.detail), AGAIN_SEC)
        return 0
    except (CallFailed, CallRefused) as error:
        log.warning("walk_waits", pool_id=walk.id, why=str(error))
        why = reason("waiting", str(error)[:300])
        _note(context, walk, walk.status, why if isinstance(error, CallRefused) else walk.reason, 2.0, str(error)[:500])
        return 0
    _note(context, walk, "walking", None, AGAIN_SEC)
    return booked


def _to_horizon(context: PoolContext, walk: Walk) -> int:
    booked = 0
    _finish_pending(context, walk)
    _check_canonical(context, walk)
    while True:
        page = context.protocols.history(f"{walk.cursor_block}:{walk.cursor_log_index}", ITEMS_PER_PAGE)
        horizon = int(page["horizon"]["block_number"])
        target = gas_target(context, horizon)
        book_gas(context, walk, target)
        reachable = [item for item in page["items"] if item["block_number"] <= target]
        for item in reachable:
            ITEM_STEPS[item["kind"]](context, walk, item)
            booked += 1
        if len(reachable) < len(page["items"]) or page["next"] is None:
            break
    book_reward_events(context, walk)
    if target > walk.cursor_block:
        _close_block(context, walk, target)
    return booked


def _check_canonical(context: PoolContext, walk: Walk) -> None:
    if walk.cursor_block_hash is None:
        return
    state = context.protocols.state(walk.cursor_block)
    if state["block_hash"] != walk.cursor_block_hash:
        raise WalkHalted("chain_reorganized", f"Walked block {walk.cursor_block} has left the chain.")


def _close_block(context: PoolContext, walk: Walk, block: int) -> None:
    """Everything up to `block` is booked: note the dust and the snapshot, then pass it.

    The step is decided and kept before it is posted: a run that dies in between posts the very same step again.
    """
    state = context.protocols.state(block)
    steth = int(state["operator"]["steth_wei"])
    if int(state["operator"]["shares"]) != walk.operator_shares:
        found = state["operator"]["shares"]
        raise WalkHalted(
            "shares_mismatch", f"The operator holds {found} shares, the walk has met {walk.operator_shares}."
        )
    dust = walk.submitted_wei - walk.requested_wei + walk.rewards_wei + walk.donated_wei - steth
    step = dust - walk.dust_wei
    bound = DUST_PER_OPERATION_WEI * walk.operations_since_dust + DUST_BASE_WEI
    if abs(step) > bound:
        raise WalkHalted("dust_out_of_bounds", f"The operator's stETH is off by {step} wei, more than rounding can be.")
    pending = {"block": block, "block_hash": state["block_hash"], "step": str(step), "state": _snapshot(state)}
    with transaction(context.sessions) as session:
        write_walk(context, session, walk, context={**walk.context, "pending": pending})
    _finish_pending(context, walk)


def _finish_pending(context: PoolContext, walk: Walk) -> None:
    pending = walk.context.get("pending")
    if pending is None:
        return
    block, step = int(pending["block"]), int(pending["step"])
    if step != 0:
        kind = "rounding_loss" if step > 0 else "rounding_gain"
        context.ledger.post_batch([movement(f"dust:{walk.id}:{block}", kind, walk.id, None, abs(step))])
    rest = {name: value for name, value in walk.context.items() if name not in {"pending", "reward_since_snapshot"}}
    with transaction(context.sessions) as session:
        _insert_snapshot(session, walk, pending)
        write_walk(
            context,
            session,
            walk,
            cursor_block=block,
            cursor_log_index=WHOLE_BLOCK,
            cursor_block_hash=pending["block_hash"],
            dust_wei=walk.dust_wei + step,
            operations_since_dust=0,
            context=rest,
        )


def _snapshot(state: dict[str, Any]) -> dict[str, str]:
    return {name: str(state[name]) for name in ("total_pooled_ether_wei", "total_shares", "share_rate")}


def _insert_snapshot(session: Session, walk: Walk, pending: dict[str, Any]) -> None:
    state = pending["state"]
    total = int(state["total_pooled_ether_wei"])
    last = session.scalars(
        select(ProtocolMetric)
        .where(ProtocolMetric.pool_id == walk.id)
        .order_by(ProtocolMetric.block_number.desc())
        .limit(1)
    ).one_or_none()
    session.add(
        ProtocolMetric(
            pool_id=walk.id,
            block_number=int(pending["block"]),
            block_hash=pending["block_hash"],
            total_pooled_ether_wei=total,
            total_shares=int(state["total_shares"]),
            share_rate=int(state["share_rate"]),
            delta_wei=None if last is None else total - last.total_pooled_ether_wei,
            reward_wei=int(walk.context.get("reward_since_snapshot", "0")),
        )
    )
    session.flush()


def _note(
    context: PoolContext,
    walk: Walk,
    status: str,
    why: dict[str, Any] | None,
    again_sec: float,
    error: str | None = None,
) -> None:
    changed = status != walk.status or why != walk.reason
    with transaction(context.sessions) as session:
        if changed:
            session.add(flow_event(walk, "walk", status, why))
        write_walk(
            context,
            session,
            walk,
            status=status,
            reason=why,
            last_error=error,
            hinted_at=None,
            next_run_at=func.now() + seconds(again_sec),
        )
