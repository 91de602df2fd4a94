"""The runner: runs the steps of leased rows and writes their outcomes. One for all flows, with the one try and except.

Whatever a step or the writing of its outcome raises, the row comes back: it waits, is tried again after a pause, or is
parked for an operator. A lease that merely ran out would hide the fault, and end it never.

Many rows cost few commits: `advance` leases up to a burst of due rows by one statement, writes their outcomes by another, and
goes on with those whose next step is due under the same lease. Each outcome is durable before the row's next step begins.
"""

import time
from collections.abc import Collection, Sequence
from typing import Any, Generic, TypeVar

import structlog
from sqlalchemy import func
from sqlalchemy.orm import Session

from apps.common.crashpoint import crashpoint
from apps.common.database import Sessions, is_transient, transaction
from apps.common.errors import Unavailable
from apps.flow.checkpoint import PARKED, are_alike, as_written, goes_on, write_alike, write_outcomes
from apps.flow.hints import Publish
from apps.flow.lanes import LaneBusy
from apps.flow.lease import LeaseLost, acquire, flow_event, give_back
from apps.flow.loading import Row
from apps.flow.outcome import Advance, BackOff, Outcome, Park, Wait, has_more, hints
from apps.flow.row import FlowMixin, code_of, reason

log = structlog.get_logger(__name__)

__all__ = ["PARKED", "Flow", "advance", "fault_text", "run", "unpark", "write"]

MAX_ATTEMPTS = 20
# A service or a database that does not answer heals without us: half a day of it, at the pause's cap, before it is parked.
MAX_ATTEMPTS_UNANSWERED = 1_000
# The part of its lease that a worker uses: what it has not begun by then it leaves to another one.
BURST_PART = 0.25

Kind = TypeVar("Kind", bound=Outcome)


class Flow(Generic[Row]):
    """What the runner has to know of one kind of row; a flow overrides what it needs.

    `task` is the Celery task that calls `advance`, and `rows_per_message` how many rows one message of it takes at most.
    `foreseen` are faults whose words are made to be kept and which are no fault of the program; of any other only its
    kind is kept on the row, which tells no secret, and the log has it whole. `lane_busy_sec` is the pause where another
    step holds the lane.
    """

    name: str
    model: type[Row]
    task: str
    rows_per_message: int = 100
    foreseen: tuple[type[Exception], ...] = (Unavailable,)
    lane_busy_sec: float = 0.2

    def __init__(self, sessions: Sessions, publish: Publish, lease_sec: float = 60.0) -> None:
        self.sessions = sessions
        self.publish = publish
        self.lease_sec = lease_sec

    def step(self, row: Row) -> Outcome:
        """Do what the row's status asks for. Runs with no transaction open, perhaps more than once: each of its effects
        carries a name of its own."""
        raise NotImplementedError

    def outcome_of(self, row: Row, error: Exception) -> Outcome | None:
        """What an exception of the step means in this flow; None for what it means in every flow."""
        return None

    def advanced(self, session: Session, done: Sequence[tuple[Row, Advance]]) -> None:
        """Belongs into the transaction that advanced the rows, which are as they were before."""

    def waits(self, session: Session, done: Sequence[tuple[Row, Wait]]) -> None:
        """Belongs into the transaction that lets the rows wait, which are as they were before."""

    def parked(self, session: Session, done: Sequence[tuple[Row, Park]]) -> None:
        """Belongs into the transaction that parked the rows, which are as they were before."""


def advance(flow: Flow[Row], *, row_id: str | None = None, early: bool = False) -> int:
    """Take up to `rows_per_message` due rows, or the named one, as far as they go now; returns how many were taken.

    Where more rows may be due than were taken, another message is sent before the first step, so that a second worker
    begins beside this one. `early` takes the named row before its time.
    """
    limit = 1 if row_id is not None else flow.rows_per_message
    begun_at = time.monotonic()
    rows = acquire(flow.sessions, flow.model, flow.lease_sec, row_id=row_id, limit=limit, early=early)
    if not rows:
        return 0
    crashpoint("flow.leased")
    if row_id is None and len(rows) == limit:
        flow.publish(flow.task, None)
    due = rows
    while due:
        due = _round(flow, due, begun_at + flow.lease_sec * BURST_PART)
    return len(rows)


def run(flow: Flow[Row], row: Row) -> Outcome | None:
    """Run one step of a leased row and write its outcome, which is returned; None where the lease was lost."""
    try:
        outcome = _step(flow, row)
        write(flow, row, outcome)
    except Exception as error:  # noqa: BLE001  # whatever it was, the row must come back
        return _after(flow, row, error)
    return outcome


def write(flow: Flow[Row], row: Row, outcome: Outcome) -> None:
    """Write an outcome with all that belongs to it in one transaction, then publish its hints; raises `LeaseLost`."""
    _write(flow, [(row, outcome)], None)


def unpark(session: Session, row: FlowMixin, first_status: str) -> None:
    """Put a parked row, locked by the caller, back to the status where it stopped, due now."""
    row.status, row.parked_status = row.parked_status or first_status, None
    row.reason, row.attempts, row.next_run_at = None, 0, func.now()
    session.add(flow_event(row, "retried", row.status, None))


def fault_text(flow: Flow[Any], error: Exception) -> str:
    """What is kept of a fault: a foreseen one's own words; of any other its kind alone."""
    if is_transient(error):
        return "the database could not answer"
    return str(error) if isinstance(error, flow.foreseen) else f"unforeseen {type(error).__name__}"


def _round(flow: Flow[Row], rows: Sequence[Row], until: float) -> list[Row]:
    """Run a step of each row, and write their outcomes; returns the rows whose next step is to be run now.

    At the time `until` no further step is begun: the rows are given back as they are, and another message sent.
    """
    done: list[tuple[Row, Outcome]] = []
    for number, row in enumerate(rows):
        if number and time.monotonic() > until:
            give_back(flow.sessions, rows[number:])
            flow.publish(flow.task, None)
            break
        try:
            done.append((row, _step(flow, row)))
        except LeaseLost as lost:
            _after(flow, row, lost)
    crashpoint("flow.stepped")
    on = time.monotonic() < until
    again = _write_all(flow, done, flow.lease_sec if on else None)
    crashpoint("flow.written")
    if not on and any(goes_on(outcome) for _, outcome in done):
        flow.publish(flow.task, None)
    return again


def _step(flow: Flow[Row], row: Row) -> Outcome:
    """The outcome of a row's step, or what its fault means; raises `LeaseLost`."""
    with structlog.contextvars.bound_contextvars(flow=flow.name, row_id=row.id):
        try:
            return flow.step(row)
        except LeaseLost:
            raise
        except Exception as error:  # noqa: BLE001  # whatever it was, the row must come back
            return _outcome_of(flow, row, error)


def _write_all(flow: Flow[Row], done: Sequence[tuple[Row, Outcome]], keep_sec: float | None) -> list[Row]:
    """Write outcomes: the plain ones together, and those that have more to write each in a transaction of its own.

    Where the writing together fails it may be one row's fault: each is then written alone, and only that one comes back as
    a fault.
    """
    plain = [(row, outcome) for row, outcome in done if not has_more(outcome)]
    groups = [plain] if plain else []
    groups += [[(row, outcome)] for row, outcome in done if has_more(outcome)]
    again: list[Row] = []
    for group in groups:
        again += _write_or_recover(flow, group, keep_sec)
    return again


def _write_or_recover(flow: Flow[Row], group: Sequence[tuple[Row, Outcome]], keep_sec: float | None) -> list[Row]:
    try:
        return _write(flow, group, keep_sec)
    except Exception as error:  # noqa: BLE001  # whatever it was, the rows must come back
        if len(group) == 1:
            _after(flow, group[0][0], error)
            return []
    return [row for one in group for row in _write_or_recover(flow, [one], keep_sec)]


def _write(flow: Flow[Row], done: Sequence[tuple[Row, Outcome]], keep_sec: float | None) -> list[Row]:
    """Write outcomes and all that belongs to them, then publish their hints; returns the rows that go on.

    A lease that was lost is noted where the row is one of many; raises `LeaseLost` where it is the only one.
    """
    alone = _nothing_belongs_to(flow, done)
    held, again = (_write_alone if alone else _write_with_more)(flow, done, keep_sec)
    kept = {row.id for row, _ in held}
    for row, outcome in done:
        _log(flow, row, outcome if row.id in kept else None)
    for task, row_id in dict.fromkeys(hint for _, outcome in held for hint in hints(outcome)):
        flow.publish(task, row_id)
    return again


def _nothing_belongs_to(flow: Flow[Row], done: Sequence[tuple[Row, Outcome]]) -> bool:
    """Whether the outcomes are all that there is to write."""
    kind = type(flow)
    adds = {Advance: kind.advanced, Wait: kind.waits, Park: kind.parked}
    nothing = {Flow.advanced, Flow.waits, Flow.parked, None}
    return all(not has_more(outcome) and adds.get(type(outcome)) in nothing for _, outcome in done) and are_alike(done)


def _write_alone(
    flow: Flow[Row], done: Sequence[tuple[Row, Outcome]], keep_sec: float | None
) -> tuple[list[tuple[Row, Outcome]], list[Row]]:
    """By one statement, which is its own transaction; returns what was held, and the rows that go on."""
    written = {row.id: row for row in write_alike(flow.sessions, done, keep_sec)}
    held = _held(done, written.keys())
    return held, [] if keep_sec is None else [written[row.id] for row, outcome in held if goes_on(outcome)]


def _write_with_more(
    flow: Flow[Row], done: Sequence[tuple[Row, Outcome]], keep_sec: float | None
) -> tuple[list[tuple[Row, Outcome]], list[Row]]:
    """One transaction with what the outcomes and the flow add; returns the same."""
    with transaction(flow.sessions) as session:
        held = _held(done, write_outcomes(session, done, keep_sec))
        for _, outcome in held:
            if isinstance(outcome, Advance) and outcome.write is not None:
                outcome.write(session)
        _tell_flow(flow, session, held)
        again = [] if keep_sec is None else as_written(session, [row for row, outcome in held if goes_on(outcome)])
    return held, again


def _held(done: Sequence[tuple[Row, Outcome]], written: Collection[str]) -> list[tuple[Row, Outcome]]:
    if not written and len(done) == 1:
        raise LeaseLost(f"{done[0][0].subject} {done[0][0].id}")
    return [(row, outcome) for row, outcome in done if row.id in written]


def _tell_flow(flow: Flow[Row], session: Session, held: Sequence[tuple[Row, Outcome]]) -> None:
    advanced, waits, parked = _of(Advance, held), _of(Wait, held), _of(Park, held)
    if advanced:
        flow.advanced(session, advanced)
    if waits:
        flow.waits(session, waits)
    if parked:
        flow.parked(session, parked)


def _of(kind: type[Kind], held: Sequence[tuple[Row, Outcome]]) -> list[tuple[Row, Kind]]:
    return [(row, outcome) for row, outcome in held if isinstance(outcome, kind)]


def _log(flow: Flow[Any], row: FlowMixin, outcome: Outcome | None) -> None:
    """One line where the row waits, fails or is parked; `None` stands for a lost lease."""
    about = {"flow": flow.name, "row_id": row.id, "status": row.status}
    if outcome is None:
        log.warning("lease_lost", **about)
    elif isinstance(outcome, Park):
        log.error("needs_attention", why=outcome.reason, **about)
    elif isinstance(outcome, BackOff):
        log.warning("step_tried_again_later", attempt=row.attempts, why=outcome.error, **about)
    elif isinstance(outcome, Wait) and code_of(outcome.reason) not in {None, code_of(row.reason)}:
        log.info("step_waits", why=outcome.reason, **about)


def _after(flow: Flow[Row], row: Row, error: Exception) -> Outcome | None:
    """Write what a fault means for the row; where even that fails, the sweep finds the row when its lease has run out."""
    outcome = None if isinstance(error, LeaseLost) else _outcome_of(flow, row, error)
    try:
        if outcome is not None:
            write(flow, row, outcome)
            return outcome
    except LeaseLost as lost:
        error = lost
    if isinstance(error, LeaseLost):
        _log(flow, row, None)
        with transaction(flow.sessions) as session:
            session.add(flow_event(row, "lease_lost", row.status, None))
    return None


def _outcome_of(flow: Flow[Row], row: Row, error: Exception) -> Outcome:
    meant = flow.outcome_of(row, error)
    if meant is not None:
        return meant
    if isinstance(error, LaneBusy):
        return Wait(flow.lane_busy_sec, row.reason)
    unanswered = isinstance(error, Unavailable) or is_transient(error)
    if not unanswered and not isinstance(error, flow.foreseen):
        log.error("step_failed", status=row.status, exc_info=error)
    text = fault_text(flow, error)
    if row.attempts >= (MAX_ATTEMPTS_UNANSWERED if unanswered else MAX_ATTEMPTS):
        return Park(reason("attempts_exhausted", text[:300]))
    return BackOff(text)
