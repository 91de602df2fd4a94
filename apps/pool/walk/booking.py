"""What every booking of the walk stands on: halts, the fenced write of the walk's row, and effects posted under their names.

An effect whose name stands for something else halts the walk, naming it, until ops have decided what it is called.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from apps.clients.base import CallRefused
from apps.clients.shapes.history import HistoryItem
from apps.clients.shapes.ledger import NewMovement
from apps.clients.shapes.rewards import Accrual, StakeDelta, StakeDeltasAnswer
from apps.common.database import transaction
from apps.flow.lease import LeaseLost
from apps.flow.row import seconds
from apps.pool import effects
from apps.pool.context import PoolContext
from apps.pool.models import Resolution, Walk
from apps.pool.states import ResolutionStatus
from apps.pool.walk.halts import FACTS
from apps.pool.walk.models import HaltRecord


@dataclass(frozen=True, kw_only=True)
class Item(HistoryItem):
    """An item of the share history. One `out_of_order` was missed, and is booked behind the walk's place."""

    out_of_order: bool = False


def item_of(found: HistoryItem, *, out_of_order: bool = False) -> Item:
    return Item(**vars(found), out_of_order=out_of_order)


def wei_of(item: HistoryItem) -> int:
    """The wei of an item that moves some; of a rebase, which moves none, it is not asked for."""
    assert item.amount_wei is not None
    return item.amount_wei


def shares_of(item: HistoryItem) -> int:
    """The shares of an item that moves some; of a claim or a rebase it is not asked for."""
    assert item.shares is not None
    return item.shares


REUSED = "message_id_reused"

Answer = TypeVar("Answer")


class WalkHalted(Exception):
    """The books cannot follow the chain any further without ops; nothing is skipped.

    `facts` say where and about what (`apps.pool.walk.halts.FACTS`), for the operator who decides about it.
    """

    def __init__(self, code: str, detail: str, **facts: Any) -> None:
        self.code = code
        self.detail = detail
        self.facts = facts
        super().__init__(f"{code}: {detail}")

    def at(self, item: Item) -> "WalkHalted":
        """The same halt, at an item of the history."""
        place: HaltRecord = {
            "block_number": item.block_number,
            "log_index": item.log_index,
            "tx_hash": item.tx_hash,
            "kind": item.kind,
            "shares": None if item.shares is None else str(item.shares),
            "amount_wei": None if item.amount_wei is None else str(item.amount_wei),
        }
        self.facts = {**place, **self.facts}
        return self

    def record(self) -> HaltRecord:
        """The halt as it is kept on the walk."""
        return {"code": self.code, "detail": self.detail, **dict.fromkeys(FACTS), **self.facts}


def write_walk(context: PoolContext, session: Session, walk: Walk, /, **values: Any) -> None:
    """Change the walk while its lane is still held, extend the lane, and keep the object in step; raises `LeaseLost`."""
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


def post_effects(context: PoolContext, walk: Walk, rows: Sequence[NewMovement]) -> None:
    """Post movements of the walk. One whose message_id stands for something else halts it, naming the id; once ops have
    decided so, that one is posted under a name of their resolution.

    Waiting cannot heal such a refusal, and nothing else of the walk may be booked past it.
    """
    try:
        context.ledger.post_batch(rows)
    except CallRefused as refusal:
        if refusal.code != REUSED:
            raise
        context.ledger.post_batch([_renamed(context, walk, row) for row in rows])


def move_stakes(context: PoolContext, walk: Walk, deltas: Sequence[StakeDelta]) -> None:
    """Stake deltas of the walk, as `post_effects` does movements."""
    try:
        context.rewards.stake_deltas(walk.id, deltas)
    except CallRefused as refusal:
        if refusal.code != REUSED:
            raise
        for delta in deltas:  # one by one, to find the one that is refused; the others keep their own names
            _under_some_name(context, walk, delta.message_id, partial(_one_delta, context, walk, delta))


def accrue(context: PoolContext, walk: Walk, name: str, reward_wei: int) -> Accrual:
    """The accrual of a rebase, as `post_effects` does movements."""

    def call(message_id: str) -> Accrual:
        return context.rewards.accrue(message_id, walk.id, reward_wei, context.settings.reward_source)

    return _under_some_name(context, walk, name, call)


def _renamed(context: PoolContext, walk: Walk, row: NewMovement) -> NewMovement:
    """A movement under the name that it can be posted under."""
    known = context.ledger.movement(row.message_id)
    if known is None or all(getattr(known, name) == value for name, value in vars(row).items()):
        return row
    return replace(row, message_id=_new_name(context, walk, row.message_id, "ledger"))


def _one_delta(context: PoolContext, walk: Walk, delta: StakeDelta, message_id: str) -> StakeDeltasAnswer:
    return context.rewards.stake_deltas(walk.id, [replace(delta, message_id=message_id)])


def _under_some_name(context: PoolContext, walk: Walk, name: str, call: Callable[[str], Answer]) -> Answer:
    try:
        return call(name)
    except CallRefused as refusal:
        if refusal.code != REUSED:
            raise
        return call(_new_name(context, walk, name, refusal.service))


def _new_name(context: PoolContext, walk: Walk, effect: str, service: str) -> str:
    """What ops have decided that a refused effect is called; halts the walk until they have."""
    with transaction(context.sessions) as session:
        decided = session.scalars(
            select(Resolution)
            .where(
                Resolution.pool_id == walk.id,
                Resolution.action == "rename_effect",
                Resolution.effect == effect,
                Resolution.status.in_((ResolutionStatus.APPROVED, ResolutionStatus.APPLIED)),
            )
            .with_for_update()
        ).first()
        if decided is None:
            detail = f"{effect} stands for something else at {service}."
            raise WalkHalted("booking_refused", detail, effect=effect)
        if decided.status == ResolutionStatus.APPROVED:
            decided.status, decided.applied_at = ResolutionStatus.APPLIED, func.clock_timestamp()
        return effects.resolution_effect(decided.id)
