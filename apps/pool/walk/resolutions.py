"""The ways out of a halt: ops say what happened, a second person confirms it where that is asked for, the walk acts.

Nothing is booked here. A resolution is a row that the walk (or a parked batch) finds at its next try, so that what was
decided is booked in the same place, order and way as all else.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from apps.common.database import transaction
from apps.common.errors import InvalidInput, NotFound
from apps.common.idempotency import differing_fields, raise_reused
from apps.common.wire import format_time, new_id, page
from apps.pool import effects
from apps.pool.context import PoolContext
from apps.pool.errors import (
    AlreadyDecided,
    BatchHasEffect,
    BatchNotMatching,
    HaltDiffers,
    NotHalted,
    SecondPersonNeeded,
)
from apps.pool.flows.unstake import elements_of
from apps.pool.models import Batch, BatchTransaction, Request, Resolution, Walk
from apps.pool.states import (
    REQUEST_TERMINAL,
    WITHOUT_EFFECT,
    BatchKind,
    BatchStatus,
    ResolutionStatus,
    TransactionStatus,
)
from apps.pool.walk.booked import missed_item
from apps.pool.walk.halts import ACTIONS, ALWAYS, WAYS_OUT

RELEASE_BATCH = "release_batch"
BATCH_OF = {"submit": BatchKind.STAKE, "request": BatchKind.UNSTAKE}


class Resolutions:
    """Owns the transactions of the resolve endpoints."""

    def __init__(self, context: PoolContext) -> None:
        self.context = context

    def resolve_walk(self, message_id: str, pool_id: str, body: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """Say what happened where the walk of a pool stands still; returns the resolution and whether it is a replay.

        `body` holds action, code, by, why and what the action needs. Raises `NotHalted`, `HaltDiffers`,
        `BatchNotMatching`, `InvalidInput`, `MessageIdReused`.
        """
        canonical = _canonical({**body, "pool_id": pool_id})
        known = self._known(message_id, canonical)
        if known is not None:
            return known, True
        with transaction(self.context.sessions) as session:
            walk = session.get(Walk, pool_id)
            halt = None if walk is None else walk.halt
        _check_against(halt, body)
        if body["action"] == "book_missed":
            missed_item(self.context, pool_id, int(body["block_number"]), int(body["log_index"]))
        if body["action"] == "adopt_as_batch":
            self._check_adoption(str(body["batch_id"]), dict(halt or {}), pool_id)
        values = {
            "pool_id": pool_id,
            "action": body["action"],
            "halt": halt,
            "tx_hash": None if halt is None or body["action"] in ALWAYS else halt["tx_hash"],
            **{name: body[name] for name in ("block_number", "log_index", "batch_id", "account", "effect")},
            "gas_cost_wei": body["gas_cost_wei"],
        }
        return self._insert(message_id, canonical, body, values)

    def release_batch(self, message_id: str, batch_id: str, body: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """Say that a parked batch did nothing on chain and never will: its requests go back to where they waited.

        Raises `BatchNotMatching` unless it is parked, and `BatchHasEffect` while one of its transactions took effect,
        may still, or was done by a transaction that is not the relayer's.
        """
        canonical = _canonical({**body, "batch_id": batch_id, "action": RELEASE_BATCH})
        known = self._known(message_id, canonical)
        if known is not None:
            return known, True
        batch = self._parked(batch_id)
        self.refuse_effects(batch)
        values = {"pool_id": batch.pool_id, "action": RELEASE_BATCH, "halt": None, "batch_id": batch_id}
        return self._insert(message_id, canonical, body, values)

    def approve(self, resolution_id: str, by: str) -> dict[str, Any]:
        """The second person agrees. Raises `SecondPersonNeeded` for the first one, `AlreadyDecided`."""
        return self._decide(resolution_id, by, ResolutionStatus.APPROVED)

    def reject(self, resolution_id: str, by: str) -> dict[str, Any]:
        """Take back what was said, as any operator may, as long as nothing has been done about it."""
        return self._decide(resolution_id, by, ResolutionStatus.REJECTED)

    def list(self, *, limit: int, after: str | None, **filters: str | None) -> dict[str, Any]:
        """Resolutions, newest first."""
        query = select(Resolution).order_by(Resolution.id.desc()).limit(limit + 1)
        for name, value in filters.items():
            if value is not None:
                query = query.where(getattr(Resolution, name) == value)
        if after is not None:
            query = query.where(Resolution.id < after)
        with transaction(self.context.sessions) as session:
            rows = [_render(row) for row in session.scalars(query)]
        return page(rows, limit, lambda item: str(item["id"]))

    def refuse_effects(self, batch: Batch, *, foreign: bool = False) -> None:
        """Raise `BatchHasEffect` unless every transaction of a batch that counts is certainly without effect.

        With `foreign` one that another sender's transaction did is taken too: the walk is about to book that one.
        """
        with transaction(self.context.sessions) as session:
            rows = session.execute(
                select(BatchTransaction.message_id, BatchTransaction.status, BatchTransaction.tx_hash).where(
                    BatchTransaction.batch_id == batch.id,
                    BatchTransaction.purpose.in_(("submit", "request", "claim")),
                )
            ).all()
            adopted = set(
                session.scalars(
                    select(Resolution.tx_hash).where(
                        Resolution.action == "adopt_as_company", Resolution.status == ResolutionStatus.APPLIED
                    )
                )
            )
        for row in rows:
            if row.tx_hash is not None and row.tx_hash in adopted:
                continue  # what it did has been booked as the company's
            found = self.context.relayer.transaction(row.message_id)
            if found is None:
                # A relayer restored from a backup may have sent it; a transaction sent by hand and adopted did happen.
                raise BatchHasEffect(
                    f"{row.message_id} is {row.status} here and unknown to the relayer: retry the batch first."
                )
            if found["status"] not in WITHOUT_EFFECT | {TransactionStatus.CONFLICT}:
                raise BatchHasEffect(f"{row.message_id} is {found['status']} at the relayer.")
            why = (found.get("reason") or {}).get("code")
            if why == "done_by_foreign_transaction" and not foreign:
                raise BatchHasEffect(
                    f"Another sender's transaction did what {row.message_id} asks for; resolve the walk with it instead."
                )

    def _insert(
        self, message_id: str, canonical: dict[str, Any], body: Mapping[str, Any], values: dict[str, Any]
    ) -> tuple[dict[str, Any], bool]:
        decided = not self.context.settings.ops_four_eyes
        said = {"by": body["by"], "why": body["why"], "evidence": body["evidence"]}
        statement = (
            insert(Resolution)
            .values(
                id=new_id(),
                message_id=message_id,
                body=canonical,
                **values,
                **said,
                status=ResolutionStatus.APPROVED if decided else ResolutionStatus.PROPOSED,
                decided_by=body["by"] if decided else None,
                decided_at=func.clock_timestamp() if decided else None,
            )
            .on_conflict_do_nothing(index_elements=["message_id"])
            .returning(Resolution)
        )
        with transaction(self.context.sessions) as session:
            row = session.scalars(statement).one_or_none()
            if row is not None and decided:
                _make_ready(session, row)
                session.refresh(row)
            shape = None if row is None else _render(row)
        if shape is None:
            return self._replay(message_id, canonical), True
        self._wake(shape)
        return shape, False

    def _decide(self, resolution_id: str, by: str, status: ResolutionStatus) -> dict[str, Any]:
        with transaction(self.context.sessions) as session:
            row = session.scalars(
                select(Resolution).where(Resolution.id == resolution_id).with_for_update()
            ).one_or_none()
            if row is None:
                raise NotFound("There is no resolution with this id.")
            if row.status not in {ResolutionStatus.PROPOSED, ResolutionStatus.APPROVED} or row.status == status:
                raise AlreadyDecided(f"This resolution is {row.status}.")
            if status == ResolutionStatus.APPROVED and by == row.by:
                raise SecondPersonNeeded
            row.status, row.decided_by, row.decided_at = status, by, func.clock_timestamp()
            session.flush()
            session.refresh(row)
            if status == ResolutionStatus.APPROVED:
                _make_ready(session, row)
                session.refresh(row)
            shape = _render(row)
        self._wake(shape)
        return shape

    def _wake(self, shape: Mapping[str, Any]) -> None:
        if shape["status"] not in {ResolutionStatus.APPROVED, ResolutionStatus.APPLIED}:
            return
        if shape["action"] == RELEASE_BATCH:
            self.context.publish("tasks.batches.advance", shape["batch_id"])
        else:
            self.context.publish("tasks.walk.run_pool", shape["pool_id"])

    def _known(self, message_id: str, canonical: dict[str, Any]) -> dict[str, Any] | None:
        with transaction(self.context.sessions) as session:
            row = session.scalars(select(Resolution).where(Resolution.message_id == message_id)).one_or_none()
            return None if row is None else _replay_of(row, canonical)

    def _replay(self, message_id: str, canonical: dict[str, Any]) -> dict[str, Any]:
        found = self._known(message_id, canonical)
        assert found is not None  # it was there a moment ago, and nothing removes it
        return found

    def _parked(self, batch_id: str) -> Batch:
        with transaction(self.context.sessions) as session:
            batch = session.get(Batch, batch_id)
        if batch is None:
            raise InvalidInput(errors={"batch_id": ["There is no batch with this id."]})
        if batch.status != BatchStatus.NEEDS_ATTENTION:
            raise BatchNotMatching(f"The batch is {batch.status}; only a parked one can be decided about.")
        return batch

    def _check_adoption(self, batch_id: str, halt: dict[str, Any], pool_id: str) -> None:
        batch = self._parked(batch_id)
        if batch.kind != BATCH_OF[halt["kind"]] or batch.pool_id != pool_id:
            raise BatchNotMatching(f"It is a {batch.kind} batch of {batch.pool_id}.")
        self.refuse_effects(batch, foreign=True)
        if halt["kind"] == "submit":
            with transaction(self.context.sessions) as session:
                query = select(func.coalesce(func.sum(Request.amount_wei), 0)).where(
                    Request.batch_id == batch_id, Request.status.not_in(REQUEST_TERMINAL)
                )
                asked = [int(session.scalar(query) or 0)]
            done = [int(halt["amount_wei"])]
        else:
            asked = [element.amount_wei for element in elements_of(self.context, batch)]
            receipt = self.context.protocols.receipt(halt["tx_hash"]) or {"withdrawal_requests": []}
            done = [int(log["amount_wei"]) for log in receipt["withdrawal_requests"]]
        if asked != done:
            raise BatchNotMatching(f"The batch asks for {asked} wei, the transaction did {done}.")


def _check_against(halt: Mapping[str, Any] | None, body: Mapping[str, Any]) -> None:
    """Raise unless what ops say is about this very halt, is one of its ways out, and says all that is needed."""
    action = body["action"]
    if action not in ALWAYS:
        if halt is None:
            raise NotHalted
        if body["code"] != halt["code"]:
            raise HaltDiffers(f"The walk stands still with {halt['code']}, not {body['code']}.")
        if action not in WAYS_OUT.get(halt["code"], ()):
            ways = ", ".join(WAYS_OUT.get(halt["code"], ())) or "none: it goes on once the cause is mended"
            raise InvalidInput(errors={"action": [f"Not a way out of {halt['code']}. Those are: {ways}."]})
        given = (body["block_number"], body["log_index"])
        if halt["tx_hash"] is not None and given != (halt["block_number"], halt["log_index"]):
            place = f"{halt['block_number']}:{halt['log_index']}"
            raise HaltDiffers(f"The walk stands still at {place}; name it as block_number and log_index.")
        if action == "rename_effect" and body["effect"] != halt["effect"]:
            raise HaltDiffers(f"The effect refused is {halt['effect']}.")
    missing = [name for name in ACTIONS[action].needs if body[name] is None]
    if missing:
        raise InvalidInput(errors={name: [f"Missing; {action} needs it."] for name in missing})


def _make_ready(session: Session, row: Resolution) -> None:
    """What an approved resolution changes at once: the batch whose transaction it was is known by it, or looks again."""
    if row.action == "adopt_as_batch":
        assert row.halt is not None
        session.add(
            BatchTransaction(
                message_id=effects.resolution_transaction(row.id, str(row.halt["kind"])),
                batch_id=row.batch_id,
                purpose=row.halt["kind"],
                status=TransactionStatus.CONFIRMED,
                tx_hash=row.tx_hash,
            )
        )
        row.status, row.applied_at = ResolutionStatus.APPLIED, func.clock_timestamp()
    if row.action == RELEASE_BATCH:
        batch = session.scalars(select(Batch).where(Batch.id == row.batch_id).with_for_update()).one()
        if batch.status != BatchStatus.NEEDS_ATTENTION:
            raise BatchNotMatching(f"The {batch.kind} batch is {batch.status} by now.")
        batch.next_run_at = func.now()
    session.flush()


def _canonical(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if value is None else str(value) for name, value in body.items() if name != "message_id"}


def _replay_of(row: Resolution, canonical: dict[str, Any]) -> dict[str, Any]:
    fields = differing_fields(canonical, row.body)
    if fields:
        raise_reused(fields)
    return _render(row)


def _render(row: Resolution) -> dict[str, Any]:
    return {
        "id": row.id,
        "message_id": row.message_id,
        "pool_id": row.pool_id,
        "action": row.action,
        "halt": row.halt,
        "block_number": row.block_number,
        "log_index": row.log_index,
        "batch_id": row.batch_id,
        "account": row.account,
        "effect": row.effect,
        "gas_cost_wei": None if row.gas_cost_wei is None else str(row.gas_cost_wei),
        "by": row.by,
        "why": row.why,
        "evidence": row.evidence,
        "status": row.status,
        "decided_by": row.decided_by,
        "created_at": format_time(row.created_at),
        "decided_at": format_time(row.decided_at),
        "applied_at": format_time(row.applied_at),
    }
