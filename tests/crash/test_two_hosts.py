"""Two hosts on one database and one broker: what one was at when it died, the other one finishes, and nothing is done twice."""

from pathlib import Path

from tests.support.postgres import Server
from tests.support.three_hosts import Ask, asking, running_broker, running_host, wait_until
from tests.support.three_steps import HELD, NEXT, environment, make_tables

FLOWS = 300  # more than two processes take at a time
LEASE_SEC = 3600.0  # none runs out but those that the test lets run out

PLACE = "INSERT INTO threes (id, status, next_run_at) SELECT n::text, 'first', now() FROM generate_series(1, %s) n"
STANDS = """
SELECT count(*) FROM effects e JOIN threes t ON e.name = t.id || ':second'
WHERE t.lease_token IS NOT NULL AND right(t.id, 1) = %s
"""
HELD_ROWS = "SELECT id, lease_token FROM threes WHERE lease_token IS NOT NULL ORDER BY id"
LEASES_RUN_OUT = "UPDATE threes SET lease_until = now() - interval '1 s' WHERE id = ANY (%s)"
STEPS_WRITTEN = (
    "SELECT subject_id, array_agg(status ORDER BY id) FROM three_events WHERE type = 'checkpoint' GROUP BY 1"
)


def test_two_hosts__one_killed_in_the_middle_of_its_steps__the_other_finishes_and_nothing_is_done_twice(
    postgres: Server, tmp_path: Path
) -> None:
    url = postgres.create("three")
    make_tables(url)
    ask = asking(url)
    with running_broker(tmp_path) as broker:
        settings = environment(url, broker.url, lease_sec=LEASE_SEC)
        with running_host("a", {**settings, "THREE_HOST": "a", "THREE_HOLD": "1"}, tmp_path) as first:
            # Both its processes come to stand in the middle of a step: the effect is taken, the outcome not written.
            ask(PLACE, FLOWS)
            wait_until(
                lambda: ask(STANDS, HELD)[0][0] == 2, "both processes of the first host are in the middle of a step"
            )
            held = ask(HELD_ROWS)
            with running_host("b", {**settings, "THREE_HOST": "b"}, tmp_path):
                wait_until(lambda: _done(ask) == FLOWS - len(held), "the second host has done all that is free")
                assert ask(HELD_ROWS) == held, "what one host holds, the other one leaves alone"
                first.kill()
                ask(LEASES_RUN_OUT, [row_id for row_id, _ in held])
                wait_until(lambda: _done(ask) == FLOWS, "the second host has finished what the first one left")
    hosts: dict[str, int] = dict(ask("SELECT host, count(*) FROM effects GROUP BY 1"))
    assert set(hosts) == {"a", "b"}
    assert sum(hosts.values()) == FLOWS * len(NEXT), "each effect was taken once"
    written: dict[str, list[str]] = dict(ask(STEPS_WRITTEN))
    assert len(written) == FLOWS
    assert {tuple(steps) for steps in written.values()} == {("second", "third", "done")}, (
        "each outcome was written once"
    )
    assert ask("SELECT count(*) FROM threes WHERE lease_token IS NOT NULL OR next_run_at IS NOT NULL")[0][0] == 0


def _done(ask: Ask) -> int:
    return int(ask("SELECT count(*) FROM threes WHERE status = 'done'")[0][0])
