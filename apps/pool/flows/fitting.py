"""Which queued requests go into one batch: whole ones, oldest first, within limits. Pure.

A request that fits the room's maximum but not what is free of it now is the holder: the room refills for it alone for as long
as patience lasts, and nobody overtakes it. After that others may go past it, but of what the room refills from then on
half is kept aside for it: it waits at most twice as long as the refill takes, and nobody waits for it without end.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Waiting:
    """A queued request: its size (wei of a stake, withdrawals of an unstake), and the most members that a batch with it
    may have, where a larger one was refused."""

    request_id: str
    size: int
    at_most: int | None = None


@dataclass(frozen=True)
class Hold:
    """The holder, since when (seconds of the database's clock), what is kept aside for it, and what the last look left."""

    request_id: str
    since: float
    aside: int = 0
    left: int = 0


@dataclass(frozen=True)
class Fit:
    chosen: list[str]
    hold: Hold | None


def fit(
    rows: Sequence[Waiting],
    *,
    batch: int | None = None,
    room: int | None = None,
    hold: Hold | None = None,
    now: float = 0.0,
    patience_sec: float = 0.0,
) -> Fit:
    """Choose out of `rows`, oldest first. `batch`: the most that one batch may sum up to, which no row alone passes;
    `room`: what is free now of a limit that refills and that batches share."""
    chosen: list[str] = []
    total, at_most, left = 0, None, room
    holder: Hold | None = None
    for row in rows:
        if left is not None and row.size > left:
            if holder is not None:
                continue  # one holder at a time: the next one is it when this one has gone
            holder, left = _hold(row, left, hold, now)
            if now - holder.since < patience_sec:
                break
            left -= holder.aside
            continue
        most = min((number for number in (at_most, row.at_most) if number is not None), default=None)
        if most is not None and len(chosen) >= most:
            break
        if batch is not None and total + row.size > batch:
            break
        chosen.append(row.request_id)
        total += row.size
        at_most = most
        left = None if left is None else left - row.size
    if holder is not None and room is not None:
        holder = Hold(holder.request_id, holder.since, holder.aside, room - total)
    return Fit(chosen, holder)


def _hold(row: Waiting, left: int, hold: Hold | None, now: float) -> tuple[Hold, int]:
    """The row as holder, with its half of what has come since the last look."""
    if hold is None or hold.request_id != row.request_id:
        return Hold(row.request_id, now, 0, left), left
    refilled = max(0, left - hold.left)
    return Hold(row.request_id, hold.since, min(left, hold.aside + refilled // 2), left), left
