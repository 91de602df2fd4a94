"""The history of a message, hash-chained: an entry changed later no longer fits the ones after it."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from relayer.models import MessageEvent


def record(session: Session, message_id: str, kind: str, body: Mapping[str, Any] | None = None) -> None:
    """Append an event. The caller holds the message's row, or has just inserted it."""
    last = session.execute(
        select(MessageEvent.number, MessageEvent.digest)
        .where(MessageEvent.message_id == message_id)
        .order_by(MessageEvent.number.desc())
        .limit(1)
    ).one_or_none()
    number, previous = (last.number + 1, last.digest) if last else (1, "")
    content = dict(body or {})
    session.add(
        MessageEvent(
            message_id=message_id,
            number=number,
            type=kind,
            body=content,
            previous_digest=previous,
            digest=digest(previous, message_id, number, kind, content),
        )
    )
    session.flush()


def digest(previous: str, message_id: str, number: int, kind: str, body: Mapping[str, Any]) -> str:
    """SHA-256 over the previous digest and the entry, as sorted JSON."""
    text = json.dumps([previous, message_id, number, kind, dict(body)], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
