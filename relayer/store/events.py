"""The history of a message, hash-chained: an entry changed later no longer fits the ones after it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from apps.common.database import one_of
from relayer.store.models import MessageEvent


@dataclass(frozen=True)
class Event:
    message_id: str
    type: str
    body: Mapping[str, object] = field(default_factory=dict)


def record(session: Session, message_id: str, kind: str, body: Mapping[str, object] | None = None) -> None:
    """Append one event; see `record_all`."""
    record_all(session, [Event(message_id, kind, body or {})])


def first_digest(event: Event) -> str:
    """The digest of the event that begins a history."""
    return digest("", event.message_id, 1, event.type, event.body)


_APPEND = text(
    """
    INSERT INTO message_events (message_id, number, type, body, previous_digest, digest)
    SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS new(
        message_id text, number integer, type text, body jsonb, previous_digest text, digest text)
    """
)


def record_all(session: Session, events: Sequence[Event]) -> None:
    """Append events in the given order. The caller holds the messages' rows, which have a history already. Where one has none,
    somebody put it into the table by hand: that must not stop the others."""
    if not events:
        return
    session.flush()
    found = session.execute(
        select(MessageEvent.message_id, MessageEvent.number, MessageEvent.digest)
        .where(one_of(MessageEvent.message_id, [event.message_id for event in events]))
        .ext(distinct_on(MessageEvent.message_id))
        .order_by(MessageEvent.message_id, MessageEvent.number.desc())
    )
    last = {row.message_id: (row.number, row.digest) for row in found}
    rows = []
    for event in events:
        number, previous = last.get(event.message_id, (0, ""))
        entry = digest(previous, event.message_id, number + 1, event.type, event.body)
        last[event.message_id] = (number + 1, entry)
        rows.append(
            {
                "message_id": event.message_id,
                "number": number + 1,
                "type": event.type,
                "body": dict(event.body),
                "previous_digest": previous,
                "digest": entry,
            }
        )
    session.execute(_APPEND, {"rows": json.dumps(rows)})


def digest(previous: str, message_id: str, number: int, kind: str, body: Mapping[str, object]) -> str:
    """SHA-256 over the previous digest and the entry, as sorted JSON."""
    text = json.dumps([previous, message_id, number, kind, dict(body)], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
