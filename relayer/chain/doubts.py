"""Doubts: what one snapshot of the chain suggests, and what is believed only when it was seen again at later blocks.

One answer of one node must not end a key's life or a message: the node may lag, count wrongly, or follow another fork. So
what it suggests is written down as a doubt, with its evidence and the head at which it was seen. The doubt counts up when
the same evidence is seen at a later head, and is dropped when it was absent at several. While a key's nonce is in doubt
nothing new is signed with the key, and none of its messages is reported to be without effect.
"""

import json
from collections.abc import Mapping, Sequence

from sqlalchemy import ColumnElement, delete, exists, func, select, text
from sqlalchemy.orm import InstrumentedAttribute, Session

from apps.common.database import Sessions, transaction
from relayer.store.models import Doubt

# A nonce that a mined transaction used is strong evidence, one that only `pending` counts is weak.
STRONG_AFTER = 2
WEAK_AFTER = 3
CLEAN_AFTER = 3

_SEEN = text(
    """
    INSERT INTO doubts AS d (subject, evidence, head, seen) VALUES (:subject, CAST(:evidence AS jsonb), :head, 1)
    ON CONFLICT (subject) DO UPDATE SET
        evidence = EXCLUDED.evidence,
        seen = CASE WHEN d.evidence <> EXCLUDED.evidence THEN 1 WHEN EXCLUDED.head > d.head THEN d.seen + 1 ELSE d.seen END,
        head = greatest(d.head, EXCLUDED.head), clean = 0, updated_at = clock_timestamp()
    RETURNING seen
    """
)
_CLEAN = text(
    """
    UPDATE doubts SET clean = clean + 1, head = :head, updated_at = clock_timestamp()
    WHERE subject = :subject AND head < :head RETURNING clean
    """
)


def nonce_of(chain_id: int, address: str) -> str:
    """The subject of a doubt about a key's nonce."""
    return f"nonce:{chain_id}:{address}"


def seen_again(sessions: Sessions, subject: str, evidence: Mapping[str, object], head: int) -> int:
    """Note that this was seen at this head; returns at how many heads, each later than the last, it was seen so far."""
    with transaction(sessions) as session:
        values = {"subject": subject, "evidence": json.dumps(evidence, sort_keys=True), "head": head}
        return int(session.execute(_SEEN, values).scalar_one())


def not_seen(sessions: Sessions, subject: str, head: int) -> None:
    """Note that it was absent at this head; after several, each later than the last, the doubt is dropped."""
    with transaction(sessions) as session:
        clean = session.execute(_CLEAN, {"subject": subject, "head": head}).scalar_one_or_none()
        if clean is not None and clean >= CLEAN_AFTER:
            session.execute(delete(Doubt).where(Doubt.subject == subject))


def drop(sessions: Sessions, subjects: Sequence[str]) -> None:
    """Forget these: each has become certain, one way or the other."""
    if subjects:
        with transaction(sessions) as session:
            session.execute(delete(Doubt).where(Doubt.subject.in_(subjects)))


def doubted(session: Session, subjects: Sequence[str]) -> set[str]:
    """Those of these subjects that are in doubt."""
    return set(session.scalars(select(Doubt.subject).where(Doubt.subject.in_(subjects))))


def nonce_doubted(chain_id: InstrumentedAttribute[int], address: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    """Whether the nonce of this row's key is in doubt."""
    return exists().where(Doubt.subject == func.concat("nonce:", chain_id, ":", address))
