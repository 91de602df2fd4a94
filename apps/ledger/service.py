"""Posting movements: the rules of the books, and who is answered what."""

import threading
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from apps.common.append_only import Proof
from apps.common.database import Sessions, transaction
from apps.common.errors import InvalidInput, problem
from apps.common.idempotency import Answer, differing_fields, dumps, raise_reused
from apps.ledger.errors import refusal
from apps.ledger.kinds import KINDS, REVERSAL
from apps.ledger.models import Movement, Refusal
from apps.ledger.movements import render
from apps.ledger.posting import NewMovement, canonical, claim, post_many, post_one

# An export holds a thread for as long as its reader reads.
MAX_EXPORTS = 2


class LedgerService:
    """Owns the transactions that post. `poster` is in autocommit: a single movement is one statement.

    Nothing is posted before `proof` is had.
    """

    def __init__(self, sessions: Sessions, poster: Engine, proof: Proof) -> None:
        self.sessions = sessions
        self._poster = poster
        self._proof = proof
        self.exports = threading.BoundedSemaphore(MAX_EXPORTS)

    def post(self, new: NewMovement, request_id: str = "") -> Answer:
        """Post one movement, once. Raises `InvalidInput`, `MessageIdReused`, `InProgress`; a refusal is an answer."""
        check_user(new, "user_id")
        self._proof.require()
        row = post_one(self._poster, new, request_id)
        if row.outcome == "known":
            fields = differing_fields(new.canonical(), canonical(row))
            if fields:
                raise_reused(fields)
        replayed = row.outcome == "known"
        if row.code is None:
            return Answer(201, dumps(render(row)), replayed)
        refused = refusal(row.code, row.user_id, row.bucket, row.missing_wei)
        return Answer(refused.status, dumps({**problem(refused), "request_id": row.request_id}), replayed)

    def post_batch(self, new: Sequence[NewMovement]) -> tuple[dict[str, Any], bool]:
        """Post up to 10,000 movements, all or nothing, set-based; each is judged at its place in the batch.

        Returns the answer and whether every item was a replay. A refusal uses up no message_id. Raises as `post` does,
        and the refusal of an item.
        """
        if len({item.message_id for item in new}) < len(new):
            raise InvalidInput(errors={"movements": ["Each message_id may stand in a batch once."]})
        for number, item in enumerate(new):
            check_user(item, f"movements.{number}.user_id")
        self._proof.require()
        with transaction(self.sessions) as session:
            claimed = claim(session, [item.message_id for item in new])
            fresh = [item for item in new if item.message_id in claimed]
            if len(fresh) < len(new):
                _refuse_known(session, [item for item in new if item.message_id not in claimed])
            first_id, last_id = post_many(session, fresh) if fresh else (None, None)
        answer = {
            "posted": len(fresh),
            "replayed": len(new) - len(fresh),
            "first_id": first_id,
            "last_id": last_id,
        }
        return answer, not fresh


def check_user(new: NewMovement, field: str) -> None:
    """A user where the kind moves a user's wei, and none between system accounts."""
    if new.kind == REVERSAL:
        return
    needed = KINDS[new.kind].needs_user
    if needed and new.user_id is None:
        raise InvalidInput(errors={field: [f"A {new.kind} moves a user's wei; name the user."]})
    if not needed and new.user_id is not None:
        raise InvalidInput(errors={field: [f"A {new.kind} is between system accounts; user_id must be null."]})


def _refuse_known(session: Session, given: Sequence[NewMovement]) -> None:
    """Let identical movements pass. Raises `MessageIdReused` for another body, and again what was refused before."""
    ids = [item.message_id for item in given]
    movements = {row.message_id: row for row in session.scalars(select(Movement).where(Movement.message_id.in_(ids)))}
    refusals = {row.message_id: row for row in session.scalars(select(Refusal).where(Refusal.message_id.in_(ids)))}
    for item in given:
        known: Any = movements.get(item.message_id) or refusals[item.message_id]
        fields = differing_fields(item.canonical(), canonical(known))
        if fields:
            raise_reused(fields, item.message_id)
    for row in refusals.values():
        raise refusal(row.code, row.user_id, row.bucket, row.missing_wei)
