"""The runner: runs the step of a leased row and writes its outcome. One for all flows, with the one try and except.

Whatever a step or the writing of its outcome raises, the row comes back: it waits, is tried again after a pause, or is
parked for an operator. A lease that merely ran out would hide the fault, and end it never.
"""

from typing import Any, Generic

import structlog
from sqlalchemy import func
from sqlalchemy.orm import Session

from apps.common.database import Sessions, is_transient, transaction
from apps.common.errors import Unavailable
from apps.flow.hints import Publish
from apps.flow.lanes import LaneBusy
from apps.flow.lease import LeaseLost, Row, flow_event, write_fenced
from apps.flow.outcome import Advance, BackOff, Outcome, Park, Wait
from apps.flow.row import FlowMixin, code_of, reason, seconds

log = structlog.get_logger(__name__)

PARKED = "needs_attention"
MAX_ATTEMPTS = 20
# A service or a database that does not answer heals without us: half a day of it, at the pause's cap, before it is parked.
MAX_ATTEMPTS_UNANSWERED = 1_000
BACK_OFF_BASE_SEC = 0.5
BACK_OFF_CAP_SEC = 60.0


class Flow(Generic[Row]):
    """What the runner has to know of one kind of row; a flow overrides what it needs.

    `foreseen` are faults whose words are made to be kept and which are no fault of the program; of any other only its
    kind is kept on the row, which tells no secret, and the log has it whole. `lane_busy_sec` is the pause where another
    step holds the lane.
    """

    name: str
    foreseen: tuple[type[Exception], ...] = (Unavailable,)
    lane_busy_sec: float = 0.2

    def __init__(self, sessions: Sessions, publish: Publish) -> None:
        self.sessions = sessions
        self.publish = publish

    def step(self, row: Row) -> Outcome:
        """Do what the row's status asks for. Runs with no transaction open, perhaps more than once: each of its effects
        carries a name of its own."""
        raise NotImplementedError

    def outcome_of(self, row: Row, error: Exception) -> Outcome | None:
        """What an exception of the step means in this flow; None for what it means in every flow."""
        return None

    def advanced(self, session: Session, row: Row, outcome: Advance) -> None:
        """Belongs into the transaction that advanced the row; `row` is as it was before."""

    def waits(self, session: Session, row: Row, outcome: Wait) -> None:
        """Belongs into the transaction that lets the row wait; `row` is as it was before."""

    def parked(self, session: Session, row: Row, outcome: Park) -> None:
        """Belongs into the transaction that parked the row; `row` is as it was before."""


def run(flow: Flow[Row], row: Row) -> Outcome | None:
    """Run the step of a leased row and write its outcome, which is returned; None where the lease was lost."""
    with structlog.contextvars.bound_contextvars(flow=flow.name, row_id=row.id):
        try:
            outcome = flow.step(row)
            write(flow, row, outcome)
        except Exception as error:  # noqa: BLE001  # whatever it was, the row must come back
            return _after(flow, row, error)
        return outcome


def write(flow: Flow[Row], row: Row, outcome: Outcome) -> None:
    """Write an outcome with all that belongs to it in one transaction, then publish its hints; raises `LeaseLost`."""
    with transaction(flow.sessions) as session:
        if isinstance(outcome, Advance):
            _advance(session, row, outcome)
            if outcome.write is not None:
                outcome.write(session)
            flow.advanced(session, row, outcome)
        elif isinstance(outcome, Wait):
            _wait(session, row, outcome)
            flow.waits(session, row, outcome)
        elif isinstance(outcome, Park):
            _park(session, row, outcome)
            flow.parked(session, row, outcome)
        else:
            _back_off(session, row, outcome)
    if isinstance(outcome, Park):
        log.error("needs_attention", status=row.status, why=outcome.reason)
    elif isinstance(outcome, BackOff):
        log.warning("step_tried_again_later", status=row.status, attempt=row.attempts, why=outcome.error)
    elif isinstance(outcome, Wait) and code_of(outcome.reason) not in {None, code_of(row.reason)}:
        log.info("step_waits", status=row.status, why=outcome.reason)
    elif isinstance(outcome, Advance):
        for task, row_id in outcome.wake:
            flow.publish(task, row_id)


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
        log.warning("lease_lost", status=row.status)
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


def _advance(session: Session, row: FlowMixin, outcome: Advance) -> None:
    changes = {
        "attempts": 0,
        "last_error": None,
        "parked_status": None,
        "hinted_at": None,
        "updated_at": func.clock_timestamp(),
        "next_run_at": None if outcome.run_in_sec is None else func.now() + seconds(outcome.run_in_sec),
        "lease_token": None,
        "lease_until": None,
        "status": outcome.status,
        "reason": outcome.reason,
        **outcome.values,
    }
    write_fenced(session, row, changes)
    session.add(flow_event(row, "checkpoint", outcome.status, outcome.reason))


def _wait(session: Session, row: FlowMixin, outcome: Wait) -> None:
    changes = {
        "attempts": func.greatest(type(row).attempts - 1, 0),
        "next_run_at": func.now() + seconds(outcome.seconds),
        "hinted_at": None,
        "lease_token": None,
        "lease_until": None,
        **outcome.values,
    }
    if outcome.reason != row.reason:
        changes |= {"reason": outcome.reason, "updated_at": func.clock_timestamp()}
        if code_of(outcome.reason) != code_of(row.reason):  # the numbers in its detail may differ at every look
            session.add(flow_event(row, "waiting", row.status, outcome.reason))
    write_fenced(session, row, changes)


def _park(session: Session, row: FlowMixin, outcome: Park) -> None:
    # A row parked again by a way out that was refused keeps the status that it was parked in first.
    before = row.parked_status if row.status == PARKED else row.status
    changes = {
        "status": PARKED,
        "parked_status": before,
        "reason": outcome.reason,
        "attempts": 0,
        "last_error": None,
        "hinted_at": None,
        "next_run_at": None,
        "lease_token": None,
        "lease_until": None,
        "updated_at": func.clock_timestamp(),
    }
    write_fenced(session, row, changes)
    session.add(flow_event(row, "parked", PARKED, outcome.reason))


def _back_off(session: Session, row: FlowMixin, outcome: BackOff) -> None:
    pause = min(BACK_OFF_CAP_SEC, BACK_OFF_BASE_SEC * 2 ** min(row.attempts, 12))
    changes = {
        "last_error": outcome.error[:500],
        "next_run_at": func.now() + seconds(pause * (func.random() * 0.5 + 0.5)),
        "hinted_at": None,
        "lease_token": None,
        "lease_until": None,
    }
    write_fenced(session, row, changes)
    session.add(flow_event(row, "failed_attempt", row.status, {"code": "transient", "detail": outcome.error[:500]}))
