"""``python -m apps.pool.trim --older-than 90d``: remove the history of flows that ended long ago.

Only what the workers noted of their runs goes (``flow_events``), and the log of webhooks' deliveries that were taken. The
feed (``request_events``), requests, batches and everything of money stay for ever.
"""

import argparse
import sys

from sqlalchemy import TextClause, text

from apps.common.database import Sessions, make_engine, make_sessions, transaction
from apps.pool.settings import load_settings

LEAST_DAYS = 30
# Rows looked at in a transaction: their locks are held for some hundredths of a second, and no flow waits for them.
PIECE = 5_000

_TRIM = text("SELECT looked, removed, last_id FROM trim_flow_events(:days, :after_id, :most)")
# Ids rise with the time at which deliveries were made.
_TRIM_DELIVERIES = text(
    """
    WITH next AS (
        SELECT id, status = 'delivered' AND delivered_at < now() - make_interval(days => :days) AS ended,
            created_at < now() - make_interval(days => :days) AS old
        FROM webhook_deliveries WHERE id > :after_id ORDER BY id LIMIT :most
    ), gone AS (
        DELETE FROM webhook_deliveries d USING next n WHERE d.id = n.id AND n.ended RETURNING d.id
    )
    SELECT (SELECT count(*) FROM next WHERE old) AS looked, (SELECT count(*) FROM gone) AS removed,
        (SELECT max(id) FROM next) AS last_id
    """
)


def trim_history(sessions: Sessions, days: int, piece: int = PIECE) -> int:
    """Remove the history of flows that ended `days` ago or longer, piece by piece; returns how many events. Broken off
    anywhere, it is simply run again."""
    return _in_pieces(sessions, _TRIM, 0, days, piece)


def trim_deliveries(sessions: Sessions, days: int, piece: int = PIECE) -> int:
    """Remove deliveries of webhooks that were taken `days` ago or longer, with their attempts; returns how many. A replay
    makes one anew."""
    return _in_pieces(sessions, _TRIM_DELIVERIES, "", days, piece)


def days_of(given: str) -> int:
    """``90d`` or ``90``; raises `ValueError`."""
    days = int(given.removesuffix("d"))
    if days < LEAST_DAYS:
        raise ValueError(f"History is kept for {LEAST_DAYS} days at least.")
    return days


def _in_pieces(sessions: Sessions, trim: TextClause, after_id: int | str, days: int, piece: int) -> int:
    removed = 0
    while True:
        with transaction(sessions) as session:
            row = session.execute(trim, {"days": days, "after_id": after_id, "most": piece}).one()
        removed += int(row.removed)
        if row.looked < piece:
            return removed
        after_id = row.last_id


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m apps.pool.trim", description="Trim the history of ended flows.")
    parser.add_argument(
        "--older-than", required=True, type=days_of, metavar="DAYS", help="for example 90d; 30d at least"
    )
    days: int = parser.parse_args().older_than
    sessions = make_sessions(make_engine(load_settings().database_url))
    sys.stdout.write(f"{trim_history(sessions, days)} events removed\n")
    sys.stdout.write(f"{trim_deliveries(sessions, days)} deliveries removed\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
