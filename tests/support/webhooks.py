"""Webhooks of a pool in this process: requests whose events are told, and workers that run when a test says so."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flask.testing import FlaskClient
from sqlalchemy import text

from apps.common.auth import HEADER
from apps.common.database import transaction
from apps.common.wei import ETHER
from apps.common.wire import new_id
from apps.flow import runner
from apps.pool.feed import change_requests, number_events, record_events
from apps.pool.models import Request
from apps.pool.webhooks.fan_out import fan_out
from apps.pool.webhooks.flow import WebhookFlow
from tests.support.pool import PoolHouse
from tests.support.protocols import KEY

LIFE = ("batched", "submitting", "confirming", "completed")
EVENTS = 1 + len(LIFE)  # and before these, the one that says that it is queued
SECRET = "whsec_of-the-tests-and-of-nobody-else"
# Every pause is over, and so is every lease.
TIME_PASSES = """
    UPDATE webhook_deliveries SET due_at = now() - interval '1 s' WHERE due_at > now();
    UPDATE webhooks SET paused_until = NULL WHERE paused_until IS NOT NULL;
    UPDATE webhooks SET lease_until = now() - interval '1 s' WHERE lease_until IS NOT NULL;
    UPDATE webhooks SET next_run_at = now() - interval '1 s' WHERE next_run_at IS NOT NULL
"""


@dataclass
class Hooks:
    """A pool with webhooks, its caller, and how long a sending may take."""

    house: PoolHouse
    client: FlaskClient
    total_sec: float = 5.0

    def post(self, path: str, **body: Any) -> Any:
        return self.client.post(path, json=body, headers={HEADER: KEY})

    def do(self, path: str, **body: Any) -> Any:
        """POST what must succeed; returns the body."""
        answer = self.post(path, **body)
        assert answer.status_code < 300, answer.get_json()
        return answer.get_json()

    def get(self, path: str, **query: Any) -> Any:
        answer = self.client.get(path, query_string=query, headers={HEADER: KEY})
        assert answer.status_code == 200, answer.get_json()
        return answer.get_json()

    def create(self, url: str, **body: Any) -> Any:
        return self.do("/v1/webhooks", **{"message_id": new_id(), "url": url, "secret": SECRET, **body})

    def act(self, hook: Any, what: str, **body: Any) -> Any:
        """Ask something of a webhook under a message_id of its own; returns the body."""
        return self.do(f"/v1/webhooks/{hook['id']}/{what}", **{"message_id": new_id(), **body})

    def requests(self, number: int = 1) -> list[str]:
        """Stakes that have just been queued, each with the event that says so."""
        ids = self.house.queue_stakes([ETHER] * number)
        with transaction(self.house.context.sessions) as session:
            record_events(session, ids)
        return ids

    def become(self, ids: Sequence[str], *statuses: str) -> None:
        """Each status of each request, and the event of it."""
        for status in statuses:
            with transaction(self.house.context.sessions) as session:
                change_requests(session, Request.id.in_(ids), status=status)

    def lives(self, number: int) -> list[str]:
        """Requests with all five events of a stake."""
        ids = self.requests(number)
        self.become(ids, *LIFE)
        return ids

    def work(self) -> int:
        """Turn the feed into deliveries and send what is due; returns how many turns endpoints had."""
        number_events(self.house.context.sessions)
        fan_out(self.house.context)
        return self.deliver()

    def deliver(self) -> int:
        turns = 0
        while runner.advance(WebhookFlow(self.house.context, total_sec=self.total_sec)):
            turns += 1
        return turns

    def work_on(self, rounds: int = 60) -> None:
        """Work, and let time pass, until nothing is pending anywhere."""
        self.work()
        for _ in range(rounds):
            if self.ask("SELECT count(*) FROM webhook_deliveries d JOIN webhooks w ON w.id = d.webhook_id"
                        " WHERE d.status = 'pending' AND w.status = 'enabled'") == 0:  # fmt: skip
                return
            self.time_passes()
            self.work()
        raise AssertionError("still pending")

    def time_passes(self) -> None:
        for statement in TIME_PASSES.split(";"):
            self.execute(statement)

    def execute(self, statement: str, **given: Any) -> None:
        with transaction(self.house.context.sessions) as session:
            session.execute(text(statement), given)

    def ask(self, query: str, **given: Any) -> Any:
        with transaction(self.house.context.sessions) as session:
            return session.scalar(text(query), given)

    def deliveries(self, hook: Any, **query: Any) -> Any:
        return self.get(f"/v1/webhooks/{hook['id']}/deliveries", **query)["items"]

    def stop_all(self) -> None:
        """No webhook of this test is there for the next one."""
        self.execute("UPDATE webhooks SET status = 'deleted', next_run_at = NULL")
