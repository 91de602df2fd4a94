"""Rebuild the pool and its positions from the log alone, with the pure arithmetic, and say where they differ.

Only what came from outside is believed (rewards, fee rates, stake deltas, who claimed); everything the service worked
out (fees, claimed wei, the index) is worked out again and compared.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Protocol

from apps.clients.shapes.common import Difference
from apps.rewards import index_math
from apps.rewards.index_math import PoolState, PositionState


class NeedsAllPositions(Exception):
    """Some positions do not tell whether this event is right: only a replay from the log's beginning can."""


class Event(Protocol):
    """The columns of ``reward_events`` that a replay reads."""

    id: int
    kind: str
    user_id: str | None
    staked_delta_wei: int
    exiting_delta_wei: int
    claimed_wei: int
    new_rewards_wei: int | None
    fee_wei: int | None
    distributed_wei: int | None
    parked_wei: int | None
    weight_wei: int | None
    fee_bps: int | None
    acc_reward_per_share: int


@dataclass
class Replay:
    """The state that a log adds up to, and the events that contradict it. In a difference, `expected` is what the log
    gives and `found` what stands in the table."""

    pool: PoolState = field(default_factory=PoolState)
    positions: dict[str, PositionState] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    # The event whose loss is being settled: until the index moves again, or the log ends.
    unsettled: str | None = None
    # False where the positions are some of the pool's: what a loss may take the index down by is then not known.
    all_positions: bool = True
    # The index at which each settled loss had to leave no position with whole wei pending.
    settled_at: list[int] = field(default_factory=list)
    losses: int = 0

    def run(self, events: Iterable[Event], after: str | None = None) -> "Replay":
        """Apply a log. A loss that it ends with is settled into all positions, or up to the user `after` where the pool's row
        says that it is being settled."""
        for event in events:
            if event.kind in {"accrual", "release"}:
                self._end_settling(self.positions)
            elif event.kind != "settle" and event.user_id in self.positions:
                self._check_settled([event.user_id])
            self._apply(event)
        if after is not None and self.unsettled is None:
            self.differences.append(Difference("pool", "settling", "none", f"up to {after!r}"))
        if after is None:
            self._end_settling(self.positions)
        else:
            self._check_settled([user for user in self.positions if user <= after])
        return self

    def compare(
        self, pool: PoolState, positions: Iterable[tuple[str, PositionState]], lowest: int | None = None
    ) -> list[Difference]:
        """Every difference: within the log, between the log and the tables, and from conservation. `lowest` is the floor of
        all standings that the pool's row remembers."""
        found = self.compare_pool(pool)
        left = dict(self.positions)
        held = []
        for user_id, position in positions:
            held.append(position)
            # Settling changes no reward, so positions are compared as they stand when all are settled at one index.
            expected = index_math.settle(left.pop(user_id, PositionState()), self.pool.index)
            found += _fields(f"position {user_id}", expected, index_math.settle(position, self.pool.index))
        for user_id, position in left.items():
            found += _fields(f"position {user_id}", index_math.settle(position, self.pool.index), PositionState())
        found += _conservation(pool, held)
        exact = index_math.lowest_standing(held)
        if lowest is not None and exact is not None and exact < lowest:
            found.append(Difference("pool", "lowest_standing", str(exact), str(lowest)))
        return found

    def compare_pool(self, pool: PoolState) -> list[Difference]:
        """What contradicts itself within the log, and where the pool's row is not what the log gives."""
        return [*self.differences, *_fields("pool", self.pool, pool)]

    def compare_positions(self, positions: Mapping[str, PositionState]) -> list[Difference]:
        """Where the rows of the positions that were replayed are not what the log gives."""
        index = self.pool.index
        return [
            difference
            for user_id, position in self.positions.items()
            for difference in _fields(
                f"position {user_id}",
                index_math.settle(position, index),
                index_math.settle(positions.get(user_id, PositionState()), index),
            )
        ]

    def _apply(self, event: Event) -> None:
        subject = f"event {event.id}"
        try:
            expected = self._derive(event)
        except ValueError as error:
            self.differences.append(Difference(subject, "kind", "possible", f"{event.kind}: {type(error).__name__}"))
            return
        for name, value in {**expected, "acc_reward_per_share": self.pool.index}.items():
            if getattr(event, name) != value:
                self.differences.append(Difference(subject, name, str(value), str(getattr(event, name))))

    def _end_settling(self, users: Iterable[str]) -> None:
        self._check_settled(users)
        if self.unsettled is not None:
            self.settled_at.append(self.pool.index)
        self.unsettled = None

    def _check_settled(self, users: Iterable[str]) -> None:
        """While a loss is being settled, whom it has reached, and who does anything, has no whole wei pending."""
        if self.unsettled is None:
            return
        for user_id in users:
            pending = index_math.pending_wei(self.positions[user_id], self.pool.index)
            if pending != 0:
                self.differences.append(Difference(self.unsettled, f"settled {user_id}", "0", str(pending)))

    def _derive(self, event: Event) -> Mapping[str, int]:
        """Apply an event to the state and return what the event must have recorded."""
        if event.kind == "accrual":
            weight, reward = self.pool.weight, event.new_rewards_wei or 0
            self.pool, parts = index_math.accrue(self.pool, reward, event.fee_bps or 0, self._fall(reward, event))
            self._note_settles(event, parts)
            return {
                "fee_wei": parts.fee,
                "distributed_wei": parts.distributed,
                "parked_wei": parts.parked,
                "weight_wei": weight,
            }
        if event.kind == "release":
            amount = event.distributed_wei or 0
            self.pool, parts = index_math.release(self.pool, amount, self._fall(amount, event))
            self._note_settles(event, parts)
            return {"new_rewards_wei": 0, "fee_wei": 0, "parked_wei": parts.parked, "weight_wei": self.pool.weight}
        user_id = event.user_id or ""
        position = self.positions.get(user_id, PositionState())
        if event.kind == "stake_delta":
            self.pool, self.positions[user_id] = index_math.change_stake(
                self.pool, position, event.staked_delta_wei, event.exiting_delta_wei
            )
            return {"claimed_wei": 0}
        self.pool, self.positions[user_id], moved = index_math.claim(self.pool, position)
        return {
            "claimed_wei": moved.claimed,
            "staked_delta_wei": moved.staked_delta,
            "exiting_delta_wei": moved.exiting_delta,
        }

    def _fall(self, amount: int, event: Event) -> int | None:
        """How far a loss may take the index down, by the positions as replayed; a gain reads none of them.

        With some of the positions a loss that was borne whole is taken as borne. Raises `NeedsAllPositions` for another.
        """
        if amount >= 0:
            return None
        self.losses += 1
        if self.all_positions:
            return index_math.bearable_fall(self.positions.values(), self.pool.index)
        if event.kind == "accrual" and event.parked_wei != 0 and self.pool.weight != 0:
            raise NeedsAllPositions
        return None

    def _note_settles(self, event: Event, parts: index_math.Accrued) -> None:
        if parts.settles:
            self.unsettled = f"event {event.id}"


def position_of(events: Iterable[Event]) -> PositionState:
    """A position from its own events alone: each tells the index that it met. Raises `ValueError` for what could not have
    been."""
    position = PositionState()
    for event in events:
        pool = PoolState(index=event.acc_reward_per_share)
        if event.kind == "stake_delta":
            _, position = index_math.change_stake(pool, position, event.staked_delta_wei, event.exiting_delta_wei)
        else:
            _, position, _ = index_math.claim(pool, position)
    return position


def _fields(
    subject: str, expected: PoolState | PositionState, found: PoolState | PositionState
) -> Iterator[Difference]:
    for item in fields(expected):
        wanted, is_now = getattr(expected, item.name), getattr(found, item.name)
        if wanted != is_now:
            yield Difference(subject, item.name, str(wanted), str(is_now))


def _conservation(pool: PoolState, positions: list[PositionState]) -> Iterator[Difference]:
    """``P * (accrued - parked) == P * sum(claimed) + sum(owed) + remainder``, read from the tables alone."""
    return conservation(
        pool,
        weight=sum(position.weight for position in positions),
        claimed=sum(position.claimed for position in positions),
        owed=sum(index_math.owed(position, pool.index) for position in positions),
    )


def conservation(pool: PoolState, *, weight: int, claimed: int, owed: int) -> Iterator[Difference]:
    """The pool's own numbers against the sums over all positions."""
    sums = {
        "weight": (weight, pool.weight),
        "claimed": (claimed, pool.claimed),
        "owed": (owed, index_math.total_owed(pool)),
    }
    for name, (expected, found) in sums.items():
        if expected != found:
            yield Difference("conservation", name, str(expected), str(found))
