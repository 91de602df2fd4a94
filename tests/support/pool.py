"""The pool in this process on a real database, with a real ledger and reward index answering HTTP beside it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func

from apps.clients.ledger import LedgerClient
from apps.clients.rewards import RewardsClient
from apps.clients.shapes.protocols import Custody, LidoState, Operator, StakeLimit, Switches
from apps.common.auth import HEADER
from apps.common.database import transaction
from apps.common.service_app import build_app
from apps.common.settings import normalise_database_url
from apps.common.wei import ETHER
from apps.common.wire import new_id
from apps.pool import BLUEPRINTS, serve
from apps.pool.context import PoolContext, make_context
from apps.pool.models import AuditEntry, Request
from apps.pool.settings import PoolSettings
from apps.rewards import create_app as create_rewards
from tests.support.protocols import KEY, NOBODY, POOL, running_ledger, serving
from tests.support.raw import raw
from tests.support.rewards import make_settings as reward_settings


def pool_settings(database_url: str, **changes: Any) -> PoolSettings:
    """Settings of a pool whose other services are nobody unless named."""
    values: dict[str, Any] = {
        "app_env": "test",
        "http_port": 8104,
        "internal_keys": (KEY,),
        "database_url": normalise_database_url(database_url),
        "broker_url": "redis://127.0.0.1:1/0",
        "pool_id": POOL,
        "ledger_url": NOBODY,
        "rewards_url": NOBODY,
        "protocols_url": NOBODY,
        "relayer_url": NOBODY,
        "relayer_api_key": "",
        "http_timeout_sec": 10.0,
        "custody_address": None,
        "operator_address": None,
        "stake_batch_threshold_wei": 10 * ETHER,
        "stake_batch_max_wait_sec": 300.0,
        "unstake_batch_threshold_wei": 10 * ETHER,
        "unstake_batch_max_wait_sec": 300.0,
        "reward_source": "share_rate",
        "pause_on_drift": False,
        "ops_four_eyes": False,
        "webhook_secret_keys": ("a-key-of-the-tests-and-of-nobody-else",),
        "webhook_allow_private": True,
    }
    return PoolSettings(**{**values, **changes})


@dataclass(frozen=True)
class PoolHouse:
    """A pool, its caller, and what it hinted at."""

    context: PoolContext
    hints: list[tuple[str, str | None]] = field(default_factory=list)

    def client(self) -> FlaskClient:
        return self._app.test_client()

    @cached_property
    def _app(self) -> Flask:
        return self.make_app()

    def make_app(self) -> Flask:
        """A web process of this pool."""
        app = build_app(
            "pool",
            blueprints=BLUEPRINTS,
            sessions=self.context.sessions,
            accepted_keys=(KEY,),
            keys_file=self.context.settings.api_keys_file,
            audit_entries=AuditEntry,
        )
        serve(app, self.context)
        return app

    def queue_stakes(self, amounts: list[int], **values: Any) -> list[str]:
        """Put stakes into the queue as their reservation leaves them; returns their ids, oldest first."""
        ids = [new_id() for _ in amounts]
        with transaction(self.context.sessions) as session:
            for number, (request_id, amount) in enumerate(zip(ids, amounts, strict=True)):
                row = {
                    "id": request_id,
                    "message_id": f"stake-{request_id}",
                    "body": {},
                    "kind": "stake",
                    "pool_id": POOL,
                    "user_id": f"user-{number}",
                    "amount_wei": amount,
                    "status": "queued",
                    "queued_at": func.clock_timestamp(),
                    "eligible_at": func.now(),
                }
                session.add(Request(**{**row, **values}))
                session.flush()
        return ids


def pool_house(database_url: str, **changes: Any) -> PoolHouse:
    hints: list[tuple[str, str | None]] = []
    settings = pool_settings(database_url, **changes)
    return PoolHouse(make_context(settings, lambda task, row_id: hints.append((task, row_id))), hints)


OPEN: dict[str, Any] = {"staking_paused": False, "queue_paused": False, "stopped": False, "bunker": False}


def lido_state(current_wei: int | None = None, **switches: bool) -> LidoState:
    """What protocols says of Lido, as far as batching looks."""
    return LidoState(
        chain_id=1,
        block_number=1,
        block_hash="0x00",
        block_time=datetime.now(UTC),
        total_pooled_ether_wei=0,
        total_shares=0,
        share_rate=0,
        operator=Operator("0x00", 0, 0, 0, 0),
        custody=Custody("0x00", 0),
        stake_limit=StakeLimit(current_wei, current_wei),
        switches=Switches(**{**OPEN, **switches}),
    )


@dataclass(frozen=True)
class FullHouse:
    """A pool with its books."""

    pool: PoolHouse
    client: FlaskClient
    ledger: LedgerClient
    rewards: RewardsClient

    def post(self, path: str, body: dict[str, Any], **headers: str) -> Any:
        return self.client.post(path, json=body, headers={HEADER: KEY, **headers})

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        """GET what must succeed; returns the body."""
        answer = self.client.get(path, query_string=query, headers={HEADER: KEY})
        assert answer.status_code == 200, answer.get_json()
        body: dict[str, Any] = answer.get_json()
        return body

    def deposit(self, user_id: str, amount_wei: int) -> None:
        raw(self.ledger).post_movement(f"deposit:{user_id}", "deposit", POOL, user_id, amount_wei)

    def balance(self, user_id: str) -> tuple[int, ...]:
        """(available, reserved, staked, unstaking) in wei."""
        found = raw(self.ledger).balance(POOL, user_id)
        return tuple(int(found[f"{bucket}_wei"]) for bucket in ("available", "reserved", "staked", "unstaking"))


@contextmanager
def full_house(make_database: Callable[[str], str], **changes: Any) -> Iterator[FullHouse]:
    """A pool, a ledger and a reward index, each on a database of its own; no chain, so no batch is ever opened."""
    rewards = create_rewards(reward_settings(make_database("rewards")))
    with running_ledger(make_database("ledger")) as books, serving(rewards) as rewards_url:
        urls = {"ledger_url": books.url, "rewards_url": rewards_url}
        pool = pool_house(make_database("pool"), **{**urls, **changes})
        yield FullHouse(pool, pool.client(), books.client, RewardsClient(rewards_url, KEY, 20))
