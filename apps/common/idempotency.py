"""One ``message_id``, one effect: the key row is written in the same transaction as the effect.

Used by rewards and protocols, whose replay is byte-identical. The ledger's replay is, too, but is made again from what
it posted, so its keys are its own (`apps.ledger.posting`). Pool and relayer keep the message_id on the resource, since
their replay is the resource as it stands now. All of them share `differing_fields` and `raise_reused`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn, TypeVar

from flask import Response
from sqlalchemy import DateTime, Row, SmallInteger, Text, func, select, text, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from apps.common.arrays import array
from apps.common.database import Sessions, transaction
from apps.common.errors import Conflict, InProgress, MessageIdReused, problem

Model = TypeVar("Model", bound=DeclarativeBase)

REPLAY_HEADER = "Idempotent-Replay"
# In a session's `info`: status and code of what its transaction stores in the place of an effect.
REFUSAL = "refusal"
_LOCK_NOT_AVAILABLE = "55P03"


class MessageKeyMixin:
    """Columns of a service's ``message_keys`` table."""

    __tablename__ = "message_keys"

    message_id: Mapped[str] = mapped_column(Text, primary_key=True)
    endpoint: Mapped[str] = mapped_column(Text)
    request: Mapped[dict[str, Any]] = mapped_column(JSONB)  # the canonical body: each endpoint has fields of its own
    status: Mapped[int | None] = mapped_column(SmallInteger)
    response: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


@dataclass(frozen=True)
class Answer:
    """A finished answer: the very text that a replay repeats."""

    status: int
    body: str
    replayed: bool

    def response(self) -> Response:
        """A first success is 201; its replay is 200; a refusal keeps its status. Replays carry the header."""
        kind = "application/problem+json" if self.status >= 400 else "application/json"
        status = 200 if self.replayed and self.status < 400 else self.status
        response = Response(self.body, status, content_type=kind)
        if self.replayed:
            response.headers[REPLAY_HEADER] = "true"
        return response


def dumps(body: Mapping[str, Any]) -> str:
    """The one rendering of a body: same content, same bytes."""
    return json.dumps(body, separators=(",", ":"))


def run_once(
    sessions: Sessions,
    keys: type[DeclarativeBase],
    *,
    message_id: str,
    endpoint: str,
    request: Mapping[str, Any],
    work: Callable[[Session], Mapping[str, Any]],
) -> Answer:
    """Do `work` once for `message_id` and return its answer, or the stored one.

    A `Conflict` out of `work` is a business refusal: its effect is rolled back and the refusal is stored (sticky). Any
    other exception stores nothing, so that the call can be repeated. Another call with the same message_id that is
    still running is waited for, up to the lock timeout. Raises `MessageIdReused`, `InProgress`.
    """
    fresh = {message_id: dict(request)}
    with transaction(sessions) as session:
        known = _register(session, keys, endpoint, fresh)
        if known:
            row = known[message_id]
            _refuse_differences(fresh[message_id], row, endpoint)
            return Answer(row.status, row.response, replayed=True)
        try:
            with session.begin_nested():
                body = dumps(work(session))
            status = 201
        except Conflict as refusal:
            session.info[REFUSAL] = (refusal.status, refusal.code)
            status, body = refusal.status, dumps(problem(refusal))
        session.execute(update(keys).where(_column(keys) == message_id).values(status=status, response=body))
    return Answer(status, body, replayed=False)


def register_batch(
    session: Session,
    keys: type[DeclarativeBase],
    *,
    endpoint: str,
    items: Mapping[str, Mapping[str, Any]],
    answer: str | None = None,
) -> set[str]:
    """Insert the keys of a batch's items, in sorted order, and return those that were known and identical.

    Where all items have one `answer`, it is stored at once; else `store_item_answers` follows. Raises `MessageIdReused`
    for an item known with another body, and the stored refusal of an item once refused; the caller's transaction then
    rolls back, so no id is used up.
    """
    in_order = {message_id: dict(items[message_id]) for message_id in sorted(items)}
    known = _register(session, keys, endpoint, in_order, answer)
    for message_id, row in known.items():
        _refuse_differences(dict(items[message_id]), row, endpoint, message_id=message_id)
        if row.status is not None and row.status >= 400:
            _raise_stored(row.response)
    return set(known)


def store_item_answers(session: Session, keys: type[DeclarativeBase], answers: Sequence[tuple[str, str]]) -> None:
    """Store the rendered answers of a batch's new items, set-based, so that a single replay is byte-identical."""
    if not answers:
        return
    session.execute(
        text(
            "UPDATE message_keys k SET status = 201, response = a.body"
            " FROM unnest(CAST(:ids AS text[]), CAST(:bodies AS text[])) AS a(message_id, body)"
            " WHERE k.message_id = a.message_id"
        ),
        {"ids": array(message_id for message_id, _ in answers), "bodies": array(body for _, body in answers)},
    )


def insert_once(session: Session, model: type[Model], **values: object) -> Model | None:
    """Insert a row that carries its `message_id`; None where one with this id is there, whatever it says."""
    statement = insert(model).values(**values).on_conflict_do_nothing(index_elements=["message_id"]).returning(model)
    return session.scalars(statement).one_or_none()


def differing_fields(given: Mapping[str, Any], stored: Mapping[str, Any]) -> list[str]:
    """Names of the fields whose values differ between two canonical bodies."""
    return sorted(name for name in {*given, *stored} if given.get(name) != stored.get(name))


def raise_reused(fields: Sequence[str], message_id: str | None = None) -> NoReturn:
    prefix = f"message_id {message_id} " if message_id else ""
    raise MessageIdReused(
        f"{prefix}was used before with another body; it differs in: {', '.join(fields)}. Nothing was applied."
        if prefix
        else None,
        errors={name: ["Differs from the first request with this message_id."] for name in fields},
    )


def _column(keys: type[DeclarativeBase]) -> Any:
    return keys.__table__.c.message_id


_INSERT_KEYS = text(
    """
    INSERT INTO message_keys (message_id, endpoint, request, status, response)
    SELECT k.message_id, :endpoint, CAST(k.request AS jsonb), :status, :answer
    FROM unnest(CAST(:ids AS text[]), CAST(:requests AS text[])) AS k (message_id, request)
    ON CONFLICT (message_id) DO NOTHING RETURNING message_id
    """
)


def _register(
    session: Session,
    keys: type[DeclarativeBase],
    endpoint: str,
    requests: Mapping[str, Mapping[str, Any]],
    answer: str | None = None,
) -> dict[str, Row[Any]]:
    """Insert the key rows, as one statement; return the rows that were there before. Waits for calls with
    the same message_ids that are still running."""
    values = {
        "endpoint": endpoint,
        "status": None if answer is None else 201,
        "answer": answer,
        "ids": array(requests),
        "requests": array(json.dumps(body) for body in requests.values()),
    }
    try:
        inserted = set(session.scalars(_INSERT_KEYS, values))
    except OperationalError as error:
        if getattr(error.orig, "pgcode", None) == _LOCK_NOT_AVAILABLE:
            raise InProgress(retry_after=1) from error
        raise
    missing = [mid for mid in requests if mid not in inserted]
    if not missing:
        return {}
    table = keys.__table__
    found = session.execute(select(table).where(table.c.message_id.in_(missing))).all()
    return {row.message_id: row for row in found}


def _refuse_differences(given: Mapping[str, Any], row: Row[Any], endpoint: str, message_id: str | None = None) -> None:
    fields = differing_fields(given, row.request)
    if row.endpoint != endpoint:
        fields = ["endpoint", *fields]
    if fields:
        raise_reused(fields, message_id)


def _raise_stored(response: str | None) -> NoReturn:
    """Raise the refusal again under its own stable code."""
    body = json.loads(response or "{}")
    for cls in Conflict.__subclasses__():
        if cls.code == body.get("code"):
            raise cls(body.get("detail"), errors=body.get("errors"))
    raise Conflict(body.get("detail"))
