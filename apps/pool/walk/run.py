"""The walk: rewards and books in chain order, one serial lane per pool, each item of the operator's history once.

Distribution walks the history from its cursor to the money horizon in (block, log index) order. An item that cannot be
booked yet stops the walk, it is never skipped; a fault that waiting cannot heal halts it with an alarm.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from apps.clients.base import CallFailed, CallRefused
from apps.clients.ledger import movement
from apps.common.database import transaction
from apps.pool.context import PoolContext
from apps.pool.flows.lanes import LaneBusy
from apps.pool.flows.leases import LeaseLost, flow_event, reason, seconds
from apps.pool.models import WHOLE_BLOCK, ProtocolMetric, Resolution, Walk
from apps.pool.reconcile.run import reconcile_in_lane
from apps.pool.walk.booking import WalkHalted, book_gas, book_reward_events, gas_target, post_effects, write_walk
from apps.pool.walk.items import ITEM_STEPS, book_donations
from apps.pool.walk.lane import walk_lane
from apps.pool.walk.passing import shares_mismatch
from apps.pool.walk.resolve import accept_dust, accept_shares, apply_to_item, book_missed, decisions_about, repin

log = structlog.get_logger(__name__)

ITEMS_PER_PAGE = 200
AGAIN_SEC = 30.0
SOON_SEC = 0.3
REFUSALS_BEFORE_HALT = 5  # two seconds apart: a pair of calls that is under way ends long before
DUST_PER_OPERATION_WEI = 2
DUST_BASE_WEI = 10**9


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
        _halt(context, walk, halt)
        return 0
    except LeaseLost:
        raise
    except CallRefused as error:
        _refused(context, walk, error)
        return 0
    except CallFailed as error:
        log.warning("walk_waits", pool_id=walk.id, why=str(error))
        # What fails once is gone at the next try, as a rule; what fails again in the same words is what it waits for.
        again = walk.status == "walking" and walk.last_error == str(error)[:500]
        why = reason("waiting", str(error)[:300]) if again else walk.reason
        _note(context, walk, walk.status, why, 2.0, str(error)[:500], halt=walk.halt)
        return 0
    except Exception as error:
        # Whatever it was, the row must show it: a fault that only a log knows stands still in silence.
        log.exception("walk_fault", pool_id=walk.id)
        detail = f"An unforeseen {type(error).__name__}; the worker's log has it whole."
        _halt(context, walk, WalkHalted("walk_fault", detail))
        return 0
    _note(context, walk, "walking", None, AGAIN_SEC)
    return booked


def _halt(context: PoolContext, walk: Walk, halt: WalkHalted) -> None:
    log.error("walk_halted", pool_id=walk.id, code=halt.code, detail=halt.detail)
    _note(context, walk, "halted", reason(halt.code, halt.detail), AGAIN_SEC, halt=halt.record())


def _refused(context: PoolContext, walk: Walk, error: CallRefused) -> None:
    """A service says no. In the middle of a pair of calls that heals by itself; said again and again it is a halt."""
    if error.code == "chain_reorganized":
        _halt(context, walk, WalkHalted("chain_reorganized", error.detail))
        return
    times = 1 + int(walk.context.get("refusals", 0))
    if times > REFUSALS_BEFORE_HALT:
        _halt(context, walk, WalkHalted("booking_refused", str(error)[:300]))
        return
    log.warning("walk_waits", pool_id=walk.id, why=str(error))
    why = reason("waiting", str(error)[:300])
    _note(context, walk, walk.status, why, 2.0, str(error)[:500], halt=walk.halt, refusals=times)


def _to_horizon(context: PoolContext, walk: Walk) -> int:
    booked = 0
    _finish_pending(context, walk)
    _check_canonical(context, walk)
    book_missed(context, walk, lambda item, decided: _book(context, walk, [item], decided))
    while True:
        page = context.protocols.history(f"{walk.cursor_block}:{walk.cursor_log_index}", ITEMS_PER_PAGE)
        horizon = int(page["horizon"]["block_number"])
        target = gas_target(context, horizon)
        book_gas(context, walk, target)
        reachable = [item for item in page["items"] if item["block_number"] <= target]
        decided = decisions_about(context, walk.id, [item["tx_hash"] for item in reachable])
        for group in _groups(reachable):
            _book(context, walk, group, decided.get((group[0]["tx_hash"], group[0]["kind"])))
            booked += len(group)
        if len(reachable) < len(page["items"]) or page["next"] is None:
            break
    book_reward_events(context, walk)
    if target > walk.cursor_block:
        _close_block(context, walk, target)
    return booked


def _groups(items: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Items in order, each alone, but gifts that stand next to each other together."""
    gifts: list[dict[str, Any]] = []
    for item in items:
        if item["kind"] == "foreign_in":
            gifts.append(item)
            continue
        if gifts:
            yield gifts
            gifts = []
        yield [item]
    if gifts:
        yield gifts


def _book(context: PoolContext, walk: Walk, group: list[dict[str, Any]], decided: Resolution | None) -> None:
    """Book one item, or gifts together, as it is usual or as ops decided; a halt carries the item it is about."""
    item = group[0]
    try:
        if decided is not None:
            apply_to_item(context, walk, item, decided)
        elif item["kind"] == "foreign_in":
            book_donations(context, walk, group)
        else:
            if item["kind"] == "rebase":
                accept_shares(context, walk, int(item["rebase"]["operator_shares"]))
            ITEM_STEPS[item["kind"]](context, walk, item)
    except WalkHalted as halt:
        raise halt.at(item) from None


def _check_canonical(context: PoolContext, walk: Walk) -> None:
    if walk.cursor_block_hash is None:
        return
    # The header alone: a walk that was halted for long stands at a block whose state no node may keep any more.
    block = context.protocols.block(walk.cursor_block)
    if block["block_hash"] != walk.cursor_block_hash and not repin(context, walk):
        raise WalkHalted(
            "chain_reorganized", f"Walked block {walk.cursor_block} has left the chain.", block_number=walk.cursor_block
        )


def _close_block(context: PoolContext, walk: Walk, block: int) -> None:
    """Everything up to `block` is booked: note the dust and the snapshot, then pass it.

    The step is decided and kept before it is posted: a run that dies in between posts the very same step again.
    """
    state = context.protocols.state(block)
    steth, shares = int(state["operator"]["steth_wei"]), int(state["operator"]["shares"])
    if shares != walk.operator_shares and not accept_shares(context, walk, shares):
        pooled, total = int(state["total_pooled_ether_wei"]), int(state["total_shares"])
        halt = shares_mismatch(walk, shares, pooled, total)
        halt.facts["block_number"] = block
        raise halt
    dust = walk.submitted_wei - walk.requested_wei + walk.rewards_wei + walk.donated_wei - steth
    step = dust - walk.dust_wei
    bound = DUST_PER_OPERATION_WEI * walk.operations_since_dust + DUST_BASE_WEI
    if abs(step) > bound:
        step -= accept_dust(context, walk, step, bound)
    if abs(step) > bound:
        detail = f"The operator's stETH is off by {step} wei, more than rounding can be."
        raise WalkHalted("dust_out_of_bounds", detail, block_number=block, amount_wei=str(step))
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
        post_effects(context, walk, [movement(f"dust:{walk.id}:{block}", kind, walk.id, None, abs(step))])
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
    *,
    halt: dict[str, Any] | None = None,
    refusals: int = 0,
) -> None:
    changed = status != walk.status or why != walk.reason
    rest = {name: value for name, value in walk.context.items() if name != "refusals"}
    with transaction(context.sessions) as session:
        if changed:
            session.add(flow_event(walk, "walk", status, why))
        write_walk(
            context,
            session,
            walk,
            status=status,
            reason=why,
            halt=halt,
            last_error=error,
            hinted_at=None,
            next_run_at=func.now() + seconds(again_sec),
            context={**rest, "refusals": refusals} if refusals else rest,
        )
