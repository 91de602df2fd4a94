"""Posting movements: the rules of the books, and who is answered what."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from apps.clients.shapes.common import Audit
from apps.clients.shapes.ledger import BatchAnswer, NewMovement
from apps.common.append_only import Proof
from apps.common.database import Sessions, transaction
from apps.common.errors import InvalidInput, problem
from apps.common.idempotency import Answer, differing_fields, dumps, raise_reused
from apps.common.shapes import dump
from apps.ledger.audits import run_audit
from apps.ledger.errors import refusal
from apps.ledger.kinds import KINDS, REVERSAL
from apps.ledger.models import Movement, Refusal
from apps.ledger.movements import shape
from apps.ledger.posting import Posting, canonical, post_many, post_one, register


class LedgerService:
    """Owns the transactions that write. `poster` is in autocommit: a single movement is one statement.

    Nothing is posted before `proof` is had. Movements and audits that name no pool are of `default_pool_id`.
    """

    def __init__(self, sessions: Sessions, poster: Engine, proof: Proof, default_pool_id: str) -> None:
        self._sessions = sessions
        self._poster = poster
        self._proof = proof
        self._default_pool_id = default_pool_id

    def post(self, new: NewMovement, request_id: str = "") -> Answer:
        """Post one movement, once; the answer is a `Movement`, or the refusal, which is final for the message_id.

        `request_id` is the HTTP request's; a stored refusal repeats that of the first. Raises `InvalidInput`,
        `MessageIdReused`, `InProgress`.
        """
        posting = self._posting(new, "user_id")
        self._proof.require()
        row = post_one(self._poster, posting, request_id)
        replayed = row.outcome == "known"
        if replayed:
            fields = differing_fields(canonical(posting), canonical(row))
            if fields:
                raise_reused(fields)
        if row.code is None:
            return Answer(201, dumps(dump(shape(row))), replayed)
        refused = refusal(row.code, row.user_id, row.bucket, row.missing_wei)
        return Answer(refused.status, dumps({**problem(refused), "request_id": row.request_id}), replayed)

    def post_batch(self, new: Sequence[NewMovement]) -> BatchAnswer:
        """Post 1 to 10,000 movements, all or nothing, set-based; each is judged at its place in the batch.

        Items that were posted before count as replayed. A refusal uses up no message_id. Raises as `post` does, and the
        refusal of an item.
        """
        if len({item.message_id for item in new}) < len(new):
            raise InvalidInput(errors={"movements": ["Each message_id may stand in a batch once."]})
        postings = [self._posting(item, f"movements.{number}.user_id") for number, item in enumerate(new)]
        self._proof.require()
        with transaction(self._sessions) as session:
            registered = register(session, [item.message_id for item in postings])
            fresh = [item for item in postings if item.message_id in registered]
            if len(fresh) < len(postings):
                _refuse_known(session, [item for item in postings if item.message_id not in registered])
            first_id, last_id = post_many(session, fresh) if fresh else (None, None)
        return BatchAnswer(len(fresh), len(postings) - len(fresh), first_id, last_id)

    def audit(self, pool_id: str | None, *, full: bool = True) -> Audit:
        """Recompute a pool's books in one snapshot, or what is new in them, and keep what was found."""
        return run_audit(self._sessions, pool_id or self._default_pool_id, full=full)

    def _posting(self, new: NewMovement, user_field: str) -> Posting:
        """With its pool known, and a user where the kind moves a user's wei and none between system accounts. Raises
        `InvalidInput` that names `user_field`."""
        if new.kind != REVERSAL:
            needed = KINDS[new.kind].needs_user
            if needed and new.user_id is None:
                raise InvalidInput(errors={user_field: [f"A {new.kind} moves a user's wei; name the user."]})
            if not needed and new.user_id is not None:
                reason = f"A {new.kind} is between system accounts; user_id must be null."
                raise InvalidInput(errors={user_field: [reason]})
        pool_id = new.pool_id or self._default_pool_id
        return Posting(new.message_id, new.kind, pool_id, new.user_id, new.amount_wei, new.reference)


def _refuse_known(session: Session, given: Sequence[Posting]) -> None:
    """Let identical movements pass. Raises `MessageIdReused` for another body, and again what was refused before."""
    ids = [item.message_id for item in given]
    movements = {row.message_id: row for row in session.scalars(select(Movement).where(Movement.message_id.in_(ids)))}
    refusals = {row.message_id: row for row in session.scalars(select(Refusal).where(Refusal.message_id.in_(ids)))}
    for item in given:
        known: Any = movements.get(item.message_id) or refusals[item.message_id]
        fields = differing_fields(canonical(item), canonical(known))
        if fields:
            raise_reused(fields, item.message_id)
    for row in refusals.values():
        raise refusal(row.code, row.user_id, row.bucket, row.missing_wei)
