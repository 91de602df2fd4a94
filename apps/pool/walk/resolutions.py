"""The ways out of a halt: ops say what happened, a second person confirms it where that is asked for, the walk acts.

Nothing is booked here. A resolution is a row that the walk (or a parked batch) finds at its next try, so that what was
decided is booked in the same place, order and way as all else.
"""

from collections.abc import Mapping

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from apps.clients.shapes.walk import HaltFacts, NewRelease, NewResolution, ResolutionPage, ResolutionsQuery
from apps.clients.shapes.walk import Resolution as ShownResolution
from apps.common.database import transaction
from apps.common.errors import InvalidInput, NotFound
from apps.common.idempotency import differing_fields, insert_once, raise_reused
from apps.common.wire import cut, new_id
from apps.pool import effects
from apps.pool.context import PoolContext
from apps.pool.errors import (
    AlreadyDecided,
    BatchHasEffect,
    BatchNotMatching,
)
from apps.pool.flows.unstake import elements_of
from apps.pool.four_eyes import check_second_person
from apps.pool.models import Batch, BatchTransaction, Request, Resolution, Walk
from apps.pool.payouts.decided import PAYOUT_INTENTS, make_due
from apps.pool.states import (
    REQUEST_TERMINAL,
    WITHOUT_EFFECT,
    BatchKind,
    BatchStatus,
    ResolutionStatus,
    TransactionStatus,
)
from apps.pool.walk.booked import missed_item
from apps.pool.walk.halts import ALWAYS, halt_facts
from apps.pool.walk.said import canonical_of, check_against, shown

RELEASE_BATCH = "release_batch"
BATCH_OF = {"submit": BatchKind.STAKE, "request": BatchKind.UNSTAKE}


class Resolutions:
    """Owns the transactions of the resolve endpoints."""

    def __init__(self, context: PoolContext) -> None:
        self.context = context

    def resolve_walk(self, said: NewResolution) -> tuple[ShownResolution, bool]:
        """Say what happened where the walk of a pool stands still; returns the resolution and whether it is a replay.

        Raises `NotHalted`, `HaltDiffers`, `BatchNotMatching`, `InvalidInput`, `MessageIdReused`.
        """
        pool_id = said.pool_id or self.context.settings.pool_id
        canonical = canonical_of(said, pool_id=pool_id)
        known = self.known(said.message_id, canonical)
        if known is not None:
            return known, True
        with transaction(self.context.sessions) as session:
            walk = session.get(Walk, pool_id)
            record = None if walk is None else walk.halt
        halt = None if record is None else halt_facts(record)
        check_against(halt, said)
        if said.action == "book_missed":
            missed_item(self.context, pool_id, said.block_number or 0, said.log_index or 0)
        if said.action == "adopt_as_batch" and halt is not None:
            self._check_adoption(str(said.batch_id), halt, pool_id)
        values = dict[str, object](
            pool_id=pool_id,
            action=said.action,
            halt=record,
            tx_hash=None if halt is None or said.action in ALWAYS else halt.tx_hash,
            block_number=said.block_number,
            log_index=said.log_index,
            batch_id=said.batch_id,
            account=said.account,
            effect=said.effect,
            gas_cost_wei=said.gas_cost_wei,
        )
        return self.insert(values, said, canonical)

    def release_batch(self, batch_id: str, said: NewRelease) -> tuple[ShownResolution, bool]:
        """Say that a parked batch did nothing on chain and never will: its requests go back to where they waited.

        Raises `BatchNotMatching` unless it is parked, and `BatchHasEffect` while one of its transactions took effect,
        may still, or was done by a transaction that is not the relayer's.
        """
        canonical = canonical_of(said, batch_id=batch_id, action=RELEASE_BATCH)
        known = self.known(said.message_id, canonical)
        if known is not None:
            return known, True
        if self._batch(batch_id) is None:
            raise NotFound("There is no batch with this id.")
        batch = self._parked(batch_id)
        self.refuse_effects(batch)
        values = dict[str, object](pool_id=batch.pool_id, action=RELEASE_BATCH, halt=None, batch_id=batch_id)
        return self.insert(values, said, canonical)

    def approve(self, resolution_id: str, by: str) -> ShownResolution:
        """The second person agrees. Raises `SecondPersonNeeded` for the first one, `AlreadyDecided`."""
        return self._decide(resolution_id, by, ResolutionStatus.APPROVED)

    def reject(self, resolution_id: str, by: str) -> ShownResolution:
        """Take back what was said, as any operator may, as long as nothing has been done about it."""
        return self._decide(resolution_id, by, ResolutionStatus.REJECTED)

    def list(self, query: ResolutionsQuery) -> ResolutionPage:
        """Resolutions, newest first."""
        wanted = select(Resolution).order_by(Resolution.id.desc()).limit(query.limit + 1)
        if query.status is not None:
            wanted = wanted.where(Resolution.status == query.status)
        if query.pool_id is not None:
            wanted = wanted.where(Resolution.pool_id == query.pool_id)
        if query.after is not None:
            wanted = wanted.where(Resolution.id < query.after)
        with transaction(self.context.sessions) as session:
            rows = [shown(row) for row in session.scalars(wanted)]
        return ResolutionPage(*cut(rows, query.limit, lambda item: item.id))

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
            if found.status not in WITHOUT_EFFECT | {TransactionStatus.CONFLICT}:
                raise BatchHasEffect(f"{row.message_id} is {found.status} at the relayer.")
            why = None if found.reason is None else found.reason.code
            if why == "done_by_foreign_transaction" and not foreign:
                raise BatchHasEffect(
                    f"Another sender's transaction did what {row.message_id} asks for; resolve the walk with it instead."
                )

    def insert(
        self, values: Mapping[str, object], said: NewRelease, canonical: Mapping[str, str | None]
    ) -> tuple[ShownResolution, bool]:
        decided = not self.context.settings.ops_four_eyes
        with transaction(self.context.sessions) as session:
            row = insert_once(
                session,
                Resolution,
                id=new_id(),
                message_id=said.message_id,
                body=canonical,
                by=said.by,
                why=said.why,
                evidence=said.evidence,
                **values,
                status=ResolutionStatus.APPROVED if decided else ResolutionStatus.PROPOSED,
                decided_by=said.by if decided else None,
                decided_at=func.clock_timestamp() if decided else None,
            )
            if row is not None and decided:
                _make_ready(session, row)
                session.refresh(row)
            shape = None if row is None else shown(row)
        if shape is None:
            return self._replay(said.message_id, canonical), True
        self._wake(shape)
        return shape, False

    def _decide(self, resolution_id: str, by: str, status: ResolutionStatus) -> ShownResolution:
        with transaction(self.context.sessions) as session:
            row = session.scalars(
                select(Resolution).where(Resolution.id == resolution_id).with_for_update()
            ).one_or_none()
            if row is None:
                raise NotFound("There is no resolution with this id.")
            if row.status not in {ResolutionStatus.PROPOSED, ResolutionStatus.APPROVED} or row.status == status:
                raise AlreadyDecided(f"This resolution is {row.status}.")
            if status == ResolutionStatus.APPROVED:
                check_second_person(by, row.by)
            row.status, row.decided_by, row.decided_at = status, by, func.clock_timestamp()
            session.flush()
            session.refresh(row)
            if status == ResolutionStatus.APPROVED:
                _make_ready(session, row)
                session.refresh(row)
            shape = shown(row)
        self._wake(shape)
        return shape

    def _wake(self, shape: ShownResolution) -> None:
        if shape.status not in {ResolutionStatus.APPROVED, ResolutionStatus.APPLIED}:
            return
        if shape.action == RELEASE_BATCH:
            self.context.publish("tasks.batches.advance", shape.batch_id)
        elif shape.action in PAYOUT_INTENTS:
            self.context.publish("tasks.requests.advance", None)
        else:
            self.context.publish("tasks.walk.run_pool", shape.pool_id)

    def known(self, message_id: str, canonical: Mapping[str, str | None]) -> ShownResolution | None:
        with transaction(self.context.sessions) as session:
            row = session.scalars(select(Resolution).where(Resolution.message_id == message_id)).one_or_none()
            return None if row is None else _replay_of(row, canonical)

    def _replay(self, message_id: str, canonical: Mapping[str, str | None]) -> ShownResolution:
        found = self.known(message_id, canonical)
        assert found is not None  # it was there a moment ago, and nothing removes it
        return found

    def _batch(self, batch_id: str) -> Batch | None:
        with transaction(self.context.sessions) as session:
            return session.get(Batch, batch_id)

    def _parked(self, batch_id: str) -> Batch:
        batch = self._batch(batch_id)
        if batch is None:
            raise InvalidInput(errors={"batch_id": ["There is no batch with this id."]})
        if batch.status != BatchStatus.NEEDS_ATTENTION:
            raise BatchNotMatching(f"The batch is {batch.status}; only a parked one can be decided about.")
        return batch

    def _check_adoption(self, batch_id: str, halt: HaltFacts, pool_id: str) -> None:
        batch = self._parked(batch_id)
        if batch.kind != BATCH_OF[str(halt.kind)] or batch.pool_id != pool_id:
            raise BatchNotMatching(f"It is a {batch.kind} batch of {batch.pool_id}.")
        self.refuse_effects(batch, foreign=True)
        if halt.kind == "submit":
            with transaction(self.context.sessions) as session:
                query = select(func.coalesce(func.sum(Request.amount_wei), 0)).where(
                    Request.batch_id == batch_id, Request.status.not_in(REQUEST_TERMINAL)
                )
                asked = [int(session.scalar(query) or 0)]
            done = [halt.amount_wei or 0]
        else:
            asked = [element.amount_wei for element in elements_of(self.context, batch)]
            receipt = self.context.protocols.receipt(str(halt.tx_hash))
            done = [] if receipt is None else [log.amount_wei for log in receipt.withdrawal_requests]
        if asked != done:
            raise BatchNotMatching(f"The batch asks for {asked} wei, the transaction did {done}.")


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
    if row.action in PAYOUT_INTENTS:
        make_due(session, row)
    session.flush()


def _replay_of(row: Resolution, canonical: Mapping[str, str | None]) -> ShownResolution:
    fields = differing_fields(canonical, row.body)
    if fields:
        raise_reused(fields)
    return shown(row)
