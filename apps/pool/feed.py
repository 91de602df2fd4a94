"""The ordered, gap-free feed of status changes, which is also each request's timeline."""

from collections.abc import Sequence

from sqlalchemy import text, update
from sqlalchemy.orm import Session

from apps.pool.models import FeedCounter

_INSERT = text(
    """
    INSERT INTO request_events (sequence, request_id, status, reason, amount_wei, settled_wei, batch_id)
    SELECT CAST(:last AS bigint) - CAST(:count AS bigint) + row_number() OVER (ORDER BY id),
           id, status, reason, amount_wei, settled_wei, batch_id
    FROM requests WHERE id = ANY(:ids)
    """
)


def record_events(session: Session, request_ids: Sequence[str]) -> None:
    """Append one event per request as it stands in this transaction.

    Call it last: the counter's row lock, held until commit, is what makes sequence order the commit order, so that a
    reader who follows ``after`` never skips a late commit.
    """
    ids = sorted(set(request_ids))
    if not ids:
        return
    session.flush()
    last = session.execute(
        update(FeedCounter)
        .values(last_sequence=FeedCounter.last_sequence + len(ids))
        .returning(FeedCounter.last_sequence),
        execution_options={"synchronize_session": False},
    ).scalar_one()
    session.execute(_INSERT, {"last": last, "count": len(ids), "ids": ids})
