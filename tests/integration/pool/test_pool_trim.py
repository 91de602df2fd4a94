"""Old history is trimmed by its command alone, and only what has ended long ago; nothing of money can be."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from apps.common.database import make_sessions
from apps.common.settings import normalise_database_url
from apps.pool.trim import days_of, trim_history

FLOWS = """
INSERT INTO requests (id, message_id, body, kind, pool_id, user_id, status, amount_wei, created_at, updated_at)
SELECT n, n, '{}', 'stake', 'eth_native', 'ann', s, 1, now() - '99 days'::interval, now() - d * '1 day'::interval
FROM (VALUES ('old', 'completed', 95), ('recent', 'completed', 40), ('young', 'failed', 5), ('open', 'queued', 95)) AS v(n, s, d)
"""
EVENTS = """
INSERT INTO flow_events (subject, subject_id, type, status, attempt, created_at)
SELECT s, i, 'ran', 'x', 0, now() - '95 days'::interval
FROM generate_series(1, 3) n, (VALUES ('request', 'old'), ('request', 'recent'), ('request', 'young'), ('request', 'open'),
                               ('walk', 'eth_native'), ('request', 'unknown')) AS v(s, i)
"""


@pytest.fixture
def pool(make_database: Callable[[str], str]) -> Engine:
    engine = create_engine(normalise_database_url(make_database("pool")))
    with engine.begin() as connection:
        connection.execute(text(FLOWS))
        connection.execute(text(EVENTS))
    return engine


def left(engine: Engine) -> dict[str, int]:
    with engine.begin() as connection:
        rows = connection.execute(text("SELECT subject_id, count(*) FROM flow_events GROUP BY 1"))
        return {row[0]: row[1] for row in rows}


@pytest.mark.parametrize("piece", [2, 18, 100])
def test_trim__in_pieces__removes_the_history_of_what_ended_so_long_ago(pool: Engine, piece: int) -> None:
    sessions = make_sessions(pool)
    kept = {"recent": 3, "young": 3, "open": 3, "eth_native": 3, "unknown": 3}
    assert trim_history(sessions, 90, piece) == 3
    assert left(pool) == kept
    assert trim_history(sessions, 90, piece) == 0
    assert trim_history(sessions, 30, piece) == 3
    assert left(pool) == {name: many for name, many in kept.items() if name != "recent"}


def test_trim__the_newest_event__stays_for_the_sweep(pool: Engine) -> None:
    with pool.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO flow_events (subject, subject_id, type, status, attempt) VALUES ('request', 'old', 'ran', 'x', 0)"
            )
        )
    assert trim_history(make_sessions(pool), 90) == 3
    assert left(pool)["old"] == 1


@pytest.mark.parametrize("days", [29, 0, -1])
def test_trim__of_less_than_thirty_days__refused_by_the_command_and_by_the_database(pool: Engine, days: int) -> None:
    with pytest.raises(ValueError, match=r"30"):
        days_of(f"{days}d")
    with pytest.raises(DBAPIError, match="thirty days"):
        trim_history(make_sessions(pool), days)


@pytest.mark.parametrize("role", ["", "SET session_replication_role = replica;"])
@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM flow_events WHERE subject_id = 'old'",
        "DELETE FROM flow_events WHERE false",
        "UPDATE flow_events SET status = 'y'",
        "TRUNCATE flow_events",
        "SET staking.trims_history = 'on'; UPDATE flow_events SET status = 'y'",
        "SET staking.trims_history = 'on'; TRUNCATE flow_events",
        "SET staking.trims_history = 'on'; DELETE FROM flow_events WHERE subject_id = 'open'",
        "SET staking.trims_history = 'on'; DELETE FROM flow_events WHERE subject_id = 'young'",
        "SET staking.trims_history = 'on'; DELETE FROM flow_events WHERE subject_id = 'eth_native'",
        "SET staking.trims_history = 'on'; DELETE FROM request_events",
        "SELECT trim_flow_events(90, 0, 100); DELETE FROM flow_events WHERE subject_id = 'recent'",
        "DELETE FROM requests WHERE id = 'old'",
    ],
)
def test_history__by_any_other_way__is_kept(pool: Engine, change: str, role: str) -> None:
    with pytest.raises(DBAPIError, match=r"refused|is kept"), pool.begin() as connection:
        connection.execute(text(f"{role} {change}"))
    assert sum(left(pool).values()) == 18
