"""The rewards service in this process, on a real database."""

from dataclasses import dataclass
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Connection, Engine, create_engine, text

from apps.common.auth import HEADER
from apps.common.settings import normalise_database_url
from apps.rewards import create_app
from apps.rewards.settings import RewardsSettings
from apps.rewards.settlement import Settlements

KEY = "test-key"
POOL = "eth_native"

Json = dict[str, Any]


@dataclass(frozen=True)
class House:
    """One rewards service, its caller, and a way past it into its database."""

    client: FlaskClient
    engine: Engine

    def ask(self, path: str, **query: Any) -> Any:
        """GET; returns the response."""
        return self.client.get(path, query_string=query, headers={HEADER: KEY})

    def get(self, path: str, **query: Any) -> Json:
        """GET what must succeed; returns the body."""
        answer = self.ask(path, **query)
        assert answer.status_code == 200, answer.get_json()
        return dict(answer.get_json())

    def post(self, path: str, body: Json) -> Any:
        """POST; returns the response."""
        return self.client.post(path, json=body, headers={HEADER: KEY})

    def done(self, path: str, body: Json) -> Json:
        """POST what must be done for the first time; returns the body."""
        answer = self.post(path, body)
        assert answer.status_code == 201, answer.get_json()
        return dict(answer.get_json())

    def refusal(self, path: str, body: Json) -> tuple[int, str]:
        """POST what must be refused; returns status and code."""
        answer = self.post(path, body)
        assert answer.content_type == "application/problem+json", answer.get_json()
        return answer.status_code, answer.get_json()["code"]

    def accrue(self, message_id: str, wei: int, pool_id: str = POOL) -> Json:
        return self.done("/v1/accruals", accrual(message_id, wei, pool_id))

    def stake(self, message_id: str, user_id: str, staked: int = 0, exiting: int = 0, pool_id: str = POOL) -> Json:
        return self.done("/v1/stake-deltas", deltas((message_id, user_id, staked, exiting), pool_id=pool_id))

    def claim(self, message_id: str, user_id: str, pool_id: str = POOL) -> int:
        """Claim; returns the claimed wei."""
        return int(self.done("/v1/claims", claim(message_id, user_id, pool_id))["claimed_wei"])

    def release(self, message_id: str, wei: int, pool_id: str = POOL) -> Json:
        return self.done("/v1/parked/release", release(message_id, wei, pool_id))

    def pool(self, pool_id: str = POOL) -> dict[str, int]:
        """A pool's numbers."""
        found = self.get(f"/v1/pools/{pool_id}")
        return {name: int(value) for name, value in found.items() if name not in {"pool_id", "settling"}}

    def position(self, user_id: str, pool_id: str = POOL) -> dict[str, int]:
        """A position's numbers."""
        found = self.get(f"/v1/positions/{user_id}", pool_id=pool_id)
        return {name: int(value) for name, value in found.items() if name not in {"pool_id", "user_id", "updated_at"}}

    def events(self, **query: Any) -> list[Json]:
        return list(self.get("/v1/events", limit=200, **query)["items"])

    def differences(self, pool_id: str | None = None, *, full: bool = True) -> list[Json]:
        """What an audit finds, a full one or one of what is new; of every pool when none is named."""
        audit = self.done("/v1/audits", {"full": full} | ({} if pool_id is None else {"pool_id": pool_id}))
        assert audit["ok"] == (audit["differences"] == [])
        return list(audit["differences"])

    def sql(self, statement: str, **values: Any) -> list[Any]:
        """Run a statement past the service, as the tables' owner; returns its rows, if it has any."""
        with self.engine.begin() as connection:
            return rows_of(connection, statement, **values)


def rows_of(connection: Connection, statement: str, **values: Any) -> list[Any]:
    found = connection.execute(text(statement), values)
    return list(found.all()) if found.returns_rows else []


def make_settings(database_url: str, fee_bps: int = 0) -> RewardsSettings:
    return RewardsSettings(
        app_env="test",
        http_port=8103,
        internal_keys=(KEY,),
        database_url=normalise_database_url(database_url),
        pool_id=POOL,
        reward_fee_bps=fee_bps,
    )


def settle_in_pieces(app: Flask, piece: int) -> None:
    """Let a loss be settled so many positions at a time, and one piece a call."""
    service = app.extensions["service"]
    service._settlements = Settlements(app.extensions["sessions"], piece, patience_sec=0)


def make_house(database_url: str, fee_bps: int = 0) -> House:
    app = create_app(make_settings(database_url, fee_bps))
    return House(app.test_client(), create_engine(normalise_database_url(database_url)))


def accrual(message_id: str, wei: int, pool_id: str = POOL, source: str = "test") -> Json:
    return {"message_id": message_id, "pool_id": pool_id, "new_rewards_wei": str(wei), "source": source}


def claim(message_id: str, user_id: str, pool_id: str = POOL) -> Json:
    return {"message_id": message_id, "pool_id": pool_id, "user_id": user_id}


def release(message_id: str, wei: int, pool_id: str = POOL) -> Json:
    return {"message_id": message_id, "pool_id": pool_id, "amount_wei": str(wei)}


def deltas(*items: tuple[str, str, int, int], pool_id: str = POOL) -> Json:
    """(message id, user, staked, exiting) each, in one call."""
    return {
        "pool_id": pool_id,
        "deltas": [
            {"message_id": mid, "user_id": user, "staked_delta_wei": str(staked), "exiting_delta_wei": str(exiting)}
            for mid, user, staked, exiting in items
        ],
    }
