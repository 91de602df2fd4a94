"""Writing movements: one in one call to the database, or a batch in a fixed number of set-based statements.

The rules of a movement stand twice: for one in the database's function (`sql/post_movement.sql`), for a batch here. A
batch of one instead of the function takes 3 to 4 times as long (3.4 ms against 0.8 ms, medians of 3,000 calls each on two
cores: ``make bench NAME=single_movement``), for it asks the database eight times where the function is asked once. What
holds the two together is `test_four_ledgers__on_any_history__are_one` in ``tests/property/ledger/test_ledger_model.py``.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import Engine, RowMapping, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from apps.common.arrays import array, arrays
from apps.common.database import run_statement
from apps.common.errors import InProgress
from apps.common.wei import MAX_WEI, exact_int
from apps.ledger.errors import AlreadyReversed, BalanceTooLarge, NotReversible, refusal
from apps.ledger.kinds import BUCKETS, KINDS, REVERSAL, Kind, bucket_changes

Owner = tuple[str, str]
_LOCK_NOT_AVAILABLE = "55P03"


@dataclass(frozen=True)
class Posting:
    """A movement to post, its pool known; `user_id` is None between system accounts. The amount is wei."""

    message_id: str
    kind: str
    pool_id: str
    user_id: str | None
    amount_wei: int
    reference: str | None

    @property
    def owner(self) -> Owner | None:
        return None if self.user_id is None else (self.pool_id, self.user_id)


def canonical(row: Any) -> dict[str, str | None]:
    """What two requests with one message_id must agree in; of a posting, a movement or a refusal."""
    return {
        "kind": row.kind,
        "pool_id": row.pool_id,
        "user_id": row.user_id,
        "amount_wei": str(row.amount_wei),
        "reference": row.reference,
    }


class Posted(NamedTuple):
    """What came of a movement: ``posted``, ``refused``, or ``known`` with what its message_id did before."""

    outcome: str
    id: int | None
    message_id: str
    kind: str
    pool_id: str
    user_id: str | None
    amount_wei: int | Decimal
    reference: str | None
    created_at: datetime | None
    code: str | None
    bucket: str | None
    missing_wei: int | Decimal | None
    request_id: str | None


_POST = "SELECT * FROM post_movement(%s, %s, %s, %s, %s, %s, %s, %s, %s)"


def post_one(engine: Engine, new: Posting, request_id: str) -> Posted:
    """Post a movement in one round trip, its transaction included. Raises `InProgress`."""
    kind = KINDS.get(new.kind)
    sides = (kind.source, kind.target) if kind else (None, None)
    given = (new.message_id, new.kind, new.pool_id, new.user_id, *sides, new.amount_wei, new.reference, request_id)
    try:
        row: Any = run_statement(engine, _POST, given)
    except DBAPIError as error:
        raise_if_in_progress(error)
        raise
    return Posted(*row)


def raise_if_in_progress(error: DBAPIError) -> None:
    """Raise `InProgress` where the lock timeout ended a wait for another request with the same message_id; a wait for any
    other lock is no such case."""
    diagnosis = getattr(error.orig, "diag", None)
    timed_out = getattr(error.orig, "pgcode", None) == _LOCK_NOT_AVAILABLE
    if timed_out and "message_keys" in (getattr(diagnosis, "context", None) or ""):
        raise InProgress(retry_after=1) from error


_REGISTER = text(
    "INSERT INTO message_keys (message_id) SELECT unnest(CAST(:ids AS text[])) ON CONFLICT DO NOTHING RETURNING message_id"
)


def register(session: Session, message_ids: Sequence[str]) -> set[str]:
    """Insert the message_ids that are new, in the order of bytes, and return them; where another transaction has inserted
    one and not ended yet, wait for it. Raises `InProgress`."""
    try:
        return set(session.scalars(_REGISTER, {"ids": array(sorted(message_ids))}))
    except DBAPIError as error:
        raise_if_in_progress(error)
        raise


# Run after `announce_movements()`: from there on this transaction takes no lock that it may have to wait for, since
# readers of the list wait for its end.
_DRAW = text(
    """
    SELECT greatest(clock_timestamp(), CAST(:not_before AS timestamptz) + interval '1 microsecond') AS at,
           array_agg(nextval('movements_id_seq')) AS ids
    FROM generate_series(1, :many)
    """
)
# The columns come as arrays: a list of ten thousand objects takes the server longer to read than to insert.
_INSERT = text(
    """
    INSERT INTO movements (id, message_id, kind, pool_id, user_id, source, target, amount_wei, reference, previous_id,
                           available_wei, reserved_wei, staked_wei, unstaking_wei, created_at)
    OVERRIDING SYSTEM VALUE
    SELECT m.*, CAST(:at AS timestamptz)
    FROM unnest(CAST(:id AS bigint[]), CAST(:message_id AS text[]), CAST(:kind AS text[]), CAST(:pool_id AS text[]),
                CAST(:user_id AS text[]), CAST(:source AS text[]), CAST(:target AS text[]), CAST(:amount AS numeric[]),
                CAST(:reference AS text[]), CAST(:previous_id AS bigint[]), CAST(:available AS numeric[]),
                CAST(:reserved AS numeric[]), CAST(:staked AS numeric[]), CAST(:unstaking AS numeric[])) AS m
    """
)
_MOVE = text(
    """
    UPDATE balances b
    SET available_wei = h.available, reserved_wei = h.reserved, staked_wei = h.staked, unstaking_wei = h.unstaking,
        last_movement_id = h.id, updated_at = CAST(:at AS timestamptz)
    FROM unnest(CAST(:id AS bigint[]), CAST(:pool_id AS text[]), CAST(:user_id AS text[]),
                CAST(:available AS numeric[]), CAST(:reserved AS numeric[]), CAST(:staked AS numeric[]),
                CAST(:unstaking AS numeric[])) AS h(id, pool_id, user_id, available, reserved, staked, unstaking)
    WHERE b.pool_id = h.pool_id AND b.user_id = h.user_id
    """
)
_COLUMNS = (
    "id",
    "message_id",
    "kind",
    "pool_id",
    "user_id",
    "source",
    "target",
    "amount",
    "reference",
    "previous_id",
    *BUCKETS,
)
_HEAD = ("id", "pool_id", "user_id", *BUCKETS)
_NO_BUCKETS = (None,) * len(BUCKETS)


def post_many(session: Session, new: Sequence[Posting]) -> tuple[int, int]:
    """Post movements whose message_ids were just registered, each judged at its place; returns the first and last id.

    Raises the first refusal; the caller's transaction then rolls back.
    """
    kinds = _kinds(new, *_lock_originals(session, new))
    held = _lock_balances(session, {item.owner for item in new if item.owner is not None})
    not_before = max((row["updated_at"] for row in held.values() if row["updated_at"] is not None), default=None)
    after = {owner: {name: exact_int(row[f"{name}_wei"]) for name in BUCKETS} for owner, row in held.items()}
    judged = []
    for item, kind in zip(new, kinds, strict=True):
        buckets = None if item.owner is None else tuple(apply_movement(after[item.owner], item, kind).values())
        judged.append((item, kind, buckets))
    session.execute(text("SELECT announce_movements()"))
    drawn = session.execute(_DRAW, {"many": len(new), "not_before": not_before}).one()
    newest = {owner: row["last_movement_id"] for owner, row in held.items()}
    rows, heads = [], {}
    for movement_id, (item, kind, buckets) in zip(drawn.ids, judged, strict=True):
        previous_id = None
        if item.owner is not None:
            previous_id, newest[item.owner] = newest[item.owner], movement_id
            heads[item.owner] = (movement_id, *item.owner, *(buckets or ()))
        given = (item.message_id, item.kind, item.pool_id, item.user_id, kind.source, kind.target)
        rows.append((movement_id, *given, item.amount_wei, item.reference, previous_id, *(buckets or _NO_BUCKETS)))
    session.execute(_INSERT, {"at": drawn.at, **arrays(_COLUMNS, rows)})
    if heads:
        session.execute(_MOVE, {"at": drawn.at, **arrays(_HEAD, list(heads.values()))})
    return drawn.ids[0], drawn.ids[-1]


def apply_movement(buckets: dict[str, int], item: Posting, kind: Kind) -> dict[str, int]:
    """Change a user's buckets by a movement, in place; raises `InsufficientBalance` or `BalanceTooLarge`."""
    for name, change in bucket_changes(kind, item.amount_wei).items():
        buckets[name] += change
        if buckets[name] < 0:
            raise refusal("insufficient_balance", item.user_id, name, -buckets[name])
        if buckets[name] >= MAX_WEI:
            raise BalanceTooLarge
    return buckets


_ENSURE = text(
    """
    INSERT INTO balances (pool_id, user_id)
    SELECT o.pool_id, o.user_id
    FROM jsonb_to_recordset(CAST(:owners AS jsonb)) AS o(pool_id text, user_id text)
    WHERE NOT EXISTS (SELECT FROM balances b WHERE b.pool_id = o.pool_id AND b.user_id = o.user_id)
    ORDER BY o.pool_id COLLATE "C", o.user_id COLLATE "C"
    ON CONFLICT DO NOTHING
    """
)
_LOCK = text(
    """
    SELECT b.* FROM balances b
    JOIN jsonb_to_recordset(CAST(:owners AS jsonb)) AS o(pool_id text, user_id text) USING (pool_id, user_id)
    ORDER BY b.pool_id, b.user_id
    FOR NO KEY UPDATE OF b
    """
)


def _lock_balances(session: Session, owners: set[Owner]) -> dict[Owner, RowMapping]:
    """Make missing rows, then lock all, both in sorted order: two batches wait for each other, never in a circle."""
    if not owners:
        return {}
    given = {"owners": json.dumps([{"pool_id": pool, "user_id": user} for pool, user in owners])}
    session.execute(text("SELECT announce_new_balances()"))
    session.execute(_ENSURE, given)
    return {(row["pool_id"], row["user_id"]): row for row in session.execute(_LOCK, given).mappings()}


_ORIGINALS = text(
    """
    SELECT message_id, kind, pool_id, user_id, amount_wei, source, target FROM movements
    WHERE message_id IN (SELECT jsonb_array_elements_text(CAST(:ids AS jsonb)))
    ORDER BY id
    FOR NO KEY UPDATE
    """
)
_REVERSED = text(
    """
    SELECT reference FROM movements
    WHERE kind = 'reversal' AND reference IN (SELECT jsonb_array_elements_text(CAST(:ids AS jsonb)))
    """
)


class _Reversible(NamedTuple):
    """What a reversal must share with its original, and whether this is a reversal itself."""

    pool_id: str
    user_id: str | None
    amount_wei: int
    reversal: bool


Originals = dict[str | None, tuple[_Reversible, Kind]]


def _lock_originals(session: Session, new: Sequence[Posting]) -> tuple[Originals, set[str | None]]:
    """What is to be reversed, locked, and which of it was before: of two reversals at once the second sees the first."""
    ids = {"ids": json.dumps([item.reference for item in new if item.kind == REVERSAL])}
    if ids["ids"] == "[]":
        return {}, set()
    rows = session.execute(_ORIGINALS, ids).all()
    originals: Originals = {row.message_id: (_reversible(row), Kind(row.source, row.target)) for row in rows}
    return originals, set(session.scalars(_REVERSED, ids))


def _kinds(new: Sequence[Posting], originals: Originals, reversed_before: set[str | None]) -> Iterator[Kind]:
    """Source and target of each in its turn; a reversal swaps those of its original, which may stand earlier here."""
    for item in new:
        if item.kind != REVERSAL:
            kind = KINDS[item.kind]
            originals[item.message_id] = (_reversible(item), kind)
        else:
            found = originals.get(item.reference)
            if found is None or found[0] != _reversible(item)._replace(reversal=False):
                raise NotReversible
            if item.reference in reversed_before:
                raise AlreadyReversed
            reversed_before.add(item.reference)
            kind = found[1].swapped()
        yield kind


def _reversible(row: Any) -> _Reversible:
    """Of a posting or of a movement's row."""
    return _Reversible(row.pool_id, row.user_id, exact_int(row.amount_wei), row.kind == REVERSAL)
