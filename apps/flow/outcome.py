"""How a step may end. What it found out is written by the runner, in one transaction, while its lease still holds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from apps.flow.row import Reason

# A task's name and the id of the one row it is to look at, or None.
Hint = tuple[str, str | None]


@dataclass(frozen=True)
class Advance:
    """The step is done: the row's next status, its column `values`, and what else belongs into the same transaction.

    `write` gets the session after the row was updated. `run_in_sec` None means that nothing is due until something else
    writes the row's ``next_run_at``. The hints in `wake` are published after the commit.
    """

    status: str
    values: Mapping[str, Any] = field(default_factory=dict)
    reason: Reason | None = None
    write: Callable[[Session], object] | None = None
    run_in_sec: float | None = 0.0
    wake: tuple[Hint, ...] = ()


@dataclass(frozen=True)
class Wait:
    """Nothing is wrong and nothing can be done yet: look again in so many seconds, without using up an attempt."""

    seconds: float
    reason: Reason | None = None
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Park:
    """It cannot heal by itself: an operator decides."""

    reason: Reason


@dataclass(frozen=True)
class BackOff:
    """A fault that may pass: the same step again later, after a pause that doubles with each attempt."""

    error: str


Outcome = Advance | Wait | Park | BackOff


def has_more(outcome: Outcome) -> bool:
    """Whether more than the row itself belongs into its transaction."""
    return isinstance(outcome, Advance) and outcome.write is not None


def hints(outcome: Outcome) -> tuple[Hint, ...]:
    """What is published after its commit."""
    return outcome.wake if isinstance(outcome, Advance) else ()
