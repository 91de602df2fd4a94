"""Posting and reading movements: the rules of the books and their transactions."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from apps.common.database import Sessions, transaction
from apps.common.errors import InvalidInput, NotFound
from apps.common.idempotency import Answer, claim_batch, dumps, run_once, store_item_answers
from apps.common.wei import exact_int
from apps.common.wire import integer_cursor, page, time_text
from apps.ledger.balances import apply_changes, bucket_sums
from apps.ledger.errors import AlreadyReversed, NotReversible
from apps.ledger.kinds import KINDS, REVERSAL, Kind, bucket_changes
from apps.ledger.models import MessageKey, Movement

ENDPOINT = "movements"


@dataclass(frozen=True)
class NewMovement:
    """A movement to post; `user_id` is None between system accounts."""

    message_id: str
    kind: str
    pool_id: str
    user_id: str | None
    amount_wei: int
    reference: str | None

    def canonical(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "pool_id": self.pool_id,
            "user_id": self.user_id,
            "amount_wei": str(self.amount_wei),
            "reference": self.reference,
        }


class LedgerService:
    """Owns the transactions of the ledger."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions

    def post(self, new: NewMovement) -> Answer:
        """Post one movement, once. Raises `InvalidInput`; refusals are stored in the answer."""
        check_user(new, "user_id")
        return run_once(
            self.sessions,
            MessageKey,
            message_id=new.message_id,
            endpoint=ENDPOINT,
            request=new.canonical(),
            work=lambda session: _post(session, [new])[0],
        )

    def post_batch(self, new: Sequence[NewMovement]) -> tuple[dict[str, Any], bool]:
        """Post up to 10,000 movements, all or nothing, set-based; judged on the balances at its end.

        Returns the answer and whether every item was a replay. A refusal uses up no message_id.
        """
        items = {item.message_id: item for item in new}
        if len(items) < len(new):
            raise InvalidInput(errors={"movements": ["Each message_id may stand in a batch once."]})
        for number, item in enumerate(new):
            check_user(item, f"movements.{number}.user_id")
        with transaction(self.sessions) as session:
            requests = {message_id: item.canonical() for message_id, item in items.items()}
            known = claim_batch(session, MessageKey, endpoint=ENDPOINT, items=requests)
            fresh = [item for item in new if item.message_id not in known]
            bodies = _post(session, fresh) if fresh else []
            store_item_answers(session, MessageKey, [(body["message_id"], dumps(body)) for body in bodies])
        answer = {
            "posted": len(bodies),
            "replayed": len(known),
            "first_id": bodies[0]["id"] if bodies else None,
            "last_id": bodies[-1]["id"] if bodies else None,
        }
        return answer, not bodies

    def movement(self, message_id: str) -> dict[str, Any]:
        with transaction(self.sessions) as session:
            row = session.scalars(select(Movement).where(Movement.message_id == message_id)).one_or_none()
        if row is None:
            raise NotFound("There is no movement with this message_id.")
        return render(row)

    def movements(
        self,
        *,
        pool_id: str,
        user_id: str | None,
        kind: str | None,
        created_after: datetime | None,
        limit: int,
        after: str | None,
    ) -> dict[str, Any]:
        """Movements in the order of their ids."""
        query = select(Movement).where(Movement.pool_id == pool_id, Movement.id > integer_cursor(after))
        if user_id is not None:
            query = query.where(Movement.user_id == user_id)
        if kind is not None:
            query = query.where(Movement.kind == kind)
        if created_after is not None:
            query = query.where(Movement.created_at > created_after)
        with transaction(self.sessions) as session:
            rows = session.scalars(query.order_by(Movement.id).limit(limit + 1)).all()
        return page([render(row) for row in rows], limit, lambda item: str(item["id"]))

    def totals(self, pool_id: str) -> dict[str, Any]:
        """Sums over the pool: user buckets, system accounts, and all together, which is zero."""
        with transaction(self.sessions) as session:
            sums = account_sums(session, pool_id)
            last = session.scalar(select(func.max(Movement.id)).where(Movement.pool_id == pool_id))
        buckets = {f"{name}_wei": str(sums[name]) for name in ("available", "reserved", "staked", "unstaking")}
        system = {name: str(value) for name, value in sums.items() if name.startswith("@")}
        return {
            "pool_id": pool_id,
            **buckets,
            "system": system,
            "sum_wei": str(sum(sums.values())),
            "last_movement_id": last,
        }


def account_sums(session: Session, pool_id: str) -> dict[str, int]:
    """Signed wei of every account of a pool; user buckets from the balance rows, system accounts from movements."""
    sums = bucket_sums(session, pool_id)
    for side, sign in (("target", 1), ("source", -1)):
        column = getattr(Movement, side)
        rows = session.execute(
            select(column, func.sum(Movement.amount_wei))
            .where(Movement.pool_id == pool_id, column.startswith("@"))
            .group_by(column)
        )
        for account, total in rows:
            sums[account] = sums.get(account, 0) + sign * exact_int(total)
    return sums


def render(row: Any) -> dict[str, Any]:
    return {
        "id": row.id,
        "message_id": row.message_id,
        "kind": row.kind,
        "pool_id": row.pool_id,
        "user_id": row.user_id,
        "amount_wei": str(row.amount_wei),
        "reference": row.reference,
        "created_at": time_text(row.created_at),
    }


def check_user(new: NewMovement, field: str) -> None:
    """A user where the kind moves a user's wei, and none between system accounts."""
    if new.kind == REVERSAL:
        return
    needed = KINDS[new.kind].needs_user
    if needed and new.user_id is None:
        raise InvalidInput(errors={field: [f"A {new.kind} moves a user's wei; name the user."]})
    if not needed and new.user_id is not None:
        raise InvalidInput(errors={field: [f"A {new.kind} is between system accounts; user_id must be null."]})


_INSERT = text(
    """
    INSERT INTO movements (message_id, kind, pool_id, user_id, source, target, amount_wei, reference)
    SELECT message_id, kind, pool_id, user_id, source, target, amount, reference
    FROM unnest(CAST(:message_ids AS text[]), CAST(:kinds AS text[]), CAST(:pool_ids AS text[]), CAST(:user_ids AS
    text[]),
                CAST(:sources AS text[]), CAST(:targets AS text[]), CAST(:amounts AS numeric[]), CAST(:refs AS text[]))
         WITH ORDINALITY AS m(message_id, kind, pool_id, user_id, source, target, amount, reference, place)
    ORDER BY place
    RETURNING id, message_id, kind, pool_id, user_id, amount_wei, reference, created_at
    """
)


def _post(session: Session, new: Sequence[NewMovement]) -> list[dict[str, Any]]:
    """Insert movements and change balances; returns the rendered movements in the given order."""
    kinds = [_resolve(session, item) for item in new]
    rows = session.execute(
        _INSERT,
        {
            "message_ids": [item.message_id for item in new],
            "kinds": [item.kind for item in new],
            "pool_ids": [item.pool_id for item in new],
            "user_ids": [item.user_id for item in new],
            "sources": [kind.source for kind in kinds],
            "targets": [kind.target for kind in kinds],
            "amounts": [item.amount_wei for item in new],
            "refs": [item.reference for item in new],
        },
    ).all()
    ids = {row.message_id: row.id for row in rows}
    changes: dict[tuple[str, str], dict[str, int]] = {}
    last_ids: dict[tuple[str, str], int] = {}
    for item, kind in zip(new, kinds, strict=True):
        if item.user_id is None:
            continue
        owner = (item.pool_id, item.user_id)
        total = changes.setdefault(owner, {})
        for bucket, amount in bucket_changes(kind, item.amount_wei).items():
            total[bucket] = total.get(bucket, 0) + amount
        last_ids[owner] = max(last_ids.get(owner, 0), ids[item.message_id])
    apply_changes(session, changes, last_ids)
    rendered = {row.message_id: render(row) for row in rows}
    return [rendered[item.message_id] for item in new]


def _resolve(session: Session, item: NewMovement) -> Kind:
    if item.kind != REVERSAL:
        return KINDS[item.kind]
    original = session.scalars(select(Movement).where(Movement.message_id == item.reference)).one_or_none()
    if original is None or original.kind == REVERSAL:
        raise NotReversible("`reference` must be the message_id of a movement that is itself no reversal.")
    same = (original.user_id, original.amount_wei, original.pool_id) == (item.user_id, item.amount_wei, item.pool_id)
    if not same:
        raise NotReversible("A reversal carries the user, pool and amount of the movement it reverses.")
    # Two reversals of one movement at once: the unique index lets one through, and this check tells the other why.
    session.execute(text("SELECT pg_advisory_xact_lock(hashtext('reversal'), hashtext(:id))"), {"id": item.reference})
    done = session.scalar(select(Movement.id).where(Movement.kind == REVERSAL, Movement.reference == item.reference))
    if done is not None:
        raise AlreadyReversed
    return Kind(original.source, original.target).swapped()
