"""The history of a message, hash-chained: an entry changed later no longer fits the ones after it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from relayer.models import MessageEvent


@dataclass(frozen=True)
class Event:
    message_id: str
    type: str
    body: Mapping[str, Any] = field(default_factory=dict)


def record(session: Session, message_id: str, kind: str, body: Mapping[str, Any] | None = None) -> None:
    """Append one event; see `record_all`."""
    record_all(session, [Event(message_id, kind, body or {})])


def record_first(session: Session, event: Event) -> None:
    """Begin the history of a message that was just inserted."""
    _append(session, [event], {})


def record_all(session: Session, events: Sequence[Event]) -> None:
    """Append events in the given order. The caller holds the messages' rows, or has just inserted them."""
    if not events:
        return
    rows = session.execute(
        select(MessageEvent.message_id, MessageEvent.number, MessageEvent.digest)
        .where(MessageEvent.message_id.in_({event.message_id for event in events}))
        .ext(distinct_on(MessageEvent.message_id))
        .order_by(MessageEvent.message_id, MessageEvent.number.desc())
    )
    _append(session, events, {row.message_id: (row.number, row.digest) for row in rows})


def digest(previous: str, message_id: str, number: int, kind: str, body: Mapping[str, Any]) -> str:
    """SHA-256 over the previous digest and the entry, as sorted JSON."""
    text = json.dumps([previous, message_id, number, kind, dict(body)], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _append(session: Session, events: Sequence[Event], last: dict[str, tuple[int, str]]) -> None:
    for event in events:
        number, previous = last.get(event.message_id, (0, ""))
        content = dict(event.body)
        entry = digest(previous, event.message_id, number + 1, event.type, content)
        last[event.message_id] = (number + 1, entry)
        session.add(
            MessageEvent(
                message_id=event.message_id,
                number=number + 1,
                type=event.type,
                body=content,
                previous_digest=previous,
                digest=entry,
            )
        )
    session.flush()
