"""The walk: rewards and books in chain order, one serial lane per pool, each item of the operator's history once.

Distribution walks the history from its cursor to the money horizon in (block, log index) order. An item that cannot be
booked yet stops the walk, it is never skipped; a fault that waiting cannot heal halts it with an alarm.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby

import structlog
from sqlalchemy import ColumnElement, case, func, select, update

from apps.clients.base import CallFailed, CallRefused
from apps.common.database import is_transient, transaction
from apps.flow.lanes import LaneBusy
from apps.flow.outcome import Advance, Outcome, Wait
from apps.flow.row import Reason, reason, seconds
from apps.flow.runner import Flow, fault_text, run
from apps.pool.context import PoolContext
from apps.pool.models import Batch, Resolution, Walk
from apps.pool.reconcile.run import reconcile
from apps.pool.states import BatchKind, BatchStatus, WalkStatus
from apps.pool.walk.booking import Item, WalkHalted, item_of
from apps.pool.walk.closing import close_block, finish_closing
from apps.pool.walk.gas import book_gas, gas_target
from apps.pool.walk.items import ITEM_STEPS, Place, together
from apps.pool.walk.lane import acquire_walk, wake_walk
from apps.pool.walk.models import HaltRecord
from apps.pool.walk.resolve import accept_shares, apply_to_item, book_missed, decisions_about, repin
from apps.pool.walk.rewards import book_reward_events

log = structlog.get_logger(__name__)

ITEMS_PER_PAGE = 200
AGAIN_SEC = 30.0
SOON_SEC = 0.3
WAITING_SEC = 2.0
REFUSALS_BEFORE_HALT = 5  # two seconds apart: a pair of calls that is under way ends long before


class WalkFlow(Flow[Walk]):
    """Runs a pool's walk. Every fault that its row cannot wait out halts it: nothing is booked past what is not."""

    name = "walk"
    model = Walk
    task = "tasks.walk.run_pool"
    foreseen = (CallFailed, CallRefused)

    def __init__(self, context: PoolContext) -> None:
        super().__init__(context.sessions, context.publish, context.settings.lease_sec)
        self.context = context
        self.booked = 0

    def step(self, row: Walk) -> Outcome:
        self.booked = _to_horizon(self.context, row)
        return _note(row, WalkStatus.WALKING, None, AGAIN_SEC)

    def outcome_of(self, row: Walk, error: Exception) -> Outcome | None:
        if isinstance(error, LaneBusy):
            return _note(row, WalkStatus.WALKING, None, SOON_SEC)
        if isinstance(error, WalkHalted):
            return _halted(row, error)
        if isinstance(error, CallRefused):
            return _refused(row, error)
        if isinstance(error, CallFailed):
            return _unanswered(row, error)
        if is_transient(error):
            return None  # the database is away: the same again, once it is back
        # A fault that only a log knows stands still in silence: the row must show it.
        log.error("walk_fault", pool_id=row.id, exc_info=error)
        detail = f"An {fault_text(self, error)}; the worker's log has it whole."
        return _halted(row, WalkHalted("walk_fault", detail))


def walk_pool(context: PoolContext, pool_id: str) -> int:
    """Walk to the horizon and return the items booked; 0 while another worker is in the lane, and the walk is due again."""
    walk = acquire_walk(context, pool_id)
    if walk is None:
        # What is in the lane may be no walk, or one that has asked for the history already: whoever leaves the lane sends the
        # next. Where that has just left, the sweep does.
        with transaction(context.sessions) as session:
            session.execute(update(Walk).where(Walk.id == pool_id).values(next_run_at=func.now()))
        return 0
    flow = WalkFlow(context)
    run(flow, walk)
    if _reconciliation_wanted(context, pool_id):
        reconcile(context, pool_id)
    _wake_exits(context, pool_id)
    wake_walk(context, pool_id)
    return flow.booked


def groups(items: Sequence[Item], decided: Mapping[tuple[str, str], Resolution]) -> Iterator[list[Item]]:
    """Items in order, in the groups that are booked together; one that ops have decided about is alone."""

    def place(item: Item) -> Place:
        if (item.tx_hash, item.kind) in decided:
            return item.block_number, item.log_index
        return together(item)

    return (list(group) for _, group in groupby(items, place))


def _wake_exits(context: PoolContext, pool_id: str) -> None:
    """An unstake batch leaves the index in this lane. The sweep that looks after it and the schedule that walks come from one
    beat: where both are due each second, the batch would find the lane taken every time."""
    waits = Batch.kind == BatchKind.UNSTAKE, Batch.status == BatchStatus.BATCHED, Batch.pool_id == pool_id
    with transaction(context.sessions) as session:
        due = session.scalar(select(Batch.id).where(*waits, Batch.next_run_at <= func.now()).limit(1))
    if due is not None:
        context.publish("tasks.batches.advance", due)


def _reconciliation_wanted(context: PoolContext, pool_id: str) -> bool:
    """Asked for by a rebase that was just walked, or by the schedule while this lane was taken."""
    with transaction(context.sessions) as session:
        return bool(session.scalar(select(Walk.reconciliation_wanted).where(Walk.id == pool_id)))


def _halted(walk: Walk, halt: WalkHalted) -> Outcome:
    log.error("walk_halted", pool_id=walk.id, code=halt.code, detail=halt.detail)
    return _note(walk, WalkStatus.HALTED, reason(halt.code, halt.detail), AGAIN_SEC, halt=halt.record())


def _refused(walk: Walk, error: CallRefused) -> Outcome:
    """A service says no. In the middle of a pair of calls that heals by itself; said again and again it is a halt."""
    if error.code == "chain_reorganized":
        return _halted(walk, WalkHalted("chain_reorganized", error.detail))
    times = 1 + walk.refusals
    if times > REFUSALS_BEFORE_HALT:
        return _halted(walk, WalkHalted("booking_refused", str(error)[:300]))
    log.warning("walk_waits", pool_id=walk.id, why=str(error))
    why = reason("waiting", str(error)[:300])
    return _note(walk, walk.status, why, WAITING_SEC, str(error)[:500], halt=walk.halt, refusals=times)


def _unanswered(walk: Walk, error: CallFailed) -> Outcome:
    """What fails once is gone at the next try, as a rule; what fails again in the same words is what it waits for."""
    log.warning("walk_waits", pool_id=walk.id, why=str(error))
    again = walk.status == WalkStatus.WALKING and walk.last_error == str(error)[:500]
    why = reason("waiting", str(error)[:300]) if again else walk.reason
    return _note(walk, walk.status, why, WAITING_SEC, str(error)[:500], halt=walk.halt)


def _note(
    walk: Walk,
    status: str,
    why: Reason | None,
    again_sec: float,
    error: str | None = None,
    *,
    halt: HaltRecord | None = None,
    refusals: int = 0,
) -> Outcome:
    """Look again later, and show how the walk stands; a line of its history only where that has changed."""
    values = {"halt": halt, "refusals": refusals, "last_error": error, "next_run_at": _again_at(walk, again_sec)}
    if status == walk.status and why == walk.reason:
        return Wait(again_sec, why, values)
    return Advance(status, values, reason=why, run_in_sec=again_sec)


def _again_at(walk: Walk, again_sec: float) -> ColumnElement[datetime]:
    """When to walk again: after so long, or at once where somebody has asked for it since this walk began. What they ask
    for may be above the horizon that this one has seen."""
    asked = Walk.next_run_at.is_distinct_from(walk.next_run_at)
    again_at = func.now() + seconds(again_sec)
    return case((asked, func.least(Walk.next_run_at, again_at)), else_=again_at)


def _to_horizon(context: PoolContext, walk: Walk) -> int:
    booked = 0
    finish_closing(context, walk)
    _check_canonical(context, walk)
    book_missed(context, walk, lambda item, decided: _book_group(context, walk, [item], decided))
    while True:
        page = context.protocols.history(f"{walk.cursor_block}:{walk.cursor_log_index}", ITEMS_PER_PAGE)
        horizon = page.horizon.block_number
        target = gas_target(context, horizon)
        book_gas(context, walk, target)
        reachable = [item_of(item) for item in page.items if item.block_number <= target]
        decided = decisions_about(context, walk.id, [item.tx_hash for item in reachable])
        for group in groups(reachable, decided):
            _book_group(context, walk, group, decided.get((group[0].tx_hash, group[0].kind)))
            booked += len(group)
        if len(reachable) < len(page.items) or page.next is None:
            break
    book_reward_events(context, walk)
    if target > walk.cursor_block:
        close_block(context, walk, target)
    return booked


def _book_group(context: PoolContext, walk: Walk, group: list[Item], decided: Resolution | None) -> None:
    """Book items together. Where that is refused, nothing of them is booked; then each is booked alone, in order, so that
    what stands before the one that cannot be booked is, and a halt is about that very item."""
    if len(group) > 1:
        try:
            ITEM_STEPS[group[0].kind](context, walk, group)
        except (WalkHalted, CallRefused, LaneBusy) as error:
            log.info("group_booked_one_by_one", items=len(group), why=str(error) or type(error).__name__)
        else:
            return
    for item in group:
        _book(context, walk, item, decided)


def _book(context: PoolContext, walk: Walk, item: Item, decided: Resolution | None) -> None:
    """Book one item, as it is usual or as ops decided; a halt carries the item it is about."""
    try:
        if decided is not None:
            apply_to_item(context, walk, item, decided)
        else:
            if item.rebase is not None:
                accept_shares(context, walk, item.rebase.operator_shares)
            ITEM_STEPS[item.kind](context, walk, [item])
    except WalkHalted as halt:
        raise halt.at(item) from None


def _check_canonical(context: PoolContext, walk: Walk) -> None:
    if walk.cursor_block_hash is None:
        return
    # The header alone: a walk that was halted for long stands at a block whose state no node may keep any more.
    block = context.protocols.block(walk.cursor_block)
    if block.block_hash != walk.cursor_block_hash and not repin(context, walk):
        raise WalkHalted(
            "chain_reorganized", f"Walked block {walk.cursor_block} has left the chain.", block_number=walk.cursor_block
        )
