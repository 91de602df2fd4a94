"""One house of five apps in this process on one node, in which users have lived, and which every operation is called in."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from flask import Flask
from sqlalchemy import MetaData, create_engine, text
from werkzeug.test import TestResponse

from apps.common.auth import HEADER
from apps.common.settings import normalise_database_url
from apps.common.wei import ETHER
from apps.ledger import create_app as create_ledger
from apps.ledger.settings import LedgerSettings
from apps.pool import create_app as create_pool
from apps.pool import serve as serve_pool
from apps.protocols import create_app as create_protocols
from apps.rewards import create_app as create_rewards
from relayer import create_app as create_relayer
from tests.support.endpoints.call import Call, Json
from tests.support.flows import Flows, running_flows
from tests.support.lido import Desk
from tests.support.protocols import KEY, POOL, make_settings
from tests.support.rewards import make_settings as reward_settings
from tests.support.web import broker

ANN = "ann"
LIFE_DEPOSIT = "deposit:1"  # of Ann
LIFE_STAKE = "stake:2"


@dataclass(frozen=True)
class Documented:
    """An operation as its service's document shows it."""

    name: str
    method: str
    path: str
    content: Json

    @property
    def writes(self) -> bool:
        return self.method != "GET"


@dataclass
class World:
    """The apps by name, and the house whose databases they share."""

    flows: Flows
    apps: Mapping[str, Flask]
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    seen: dict[str, Any] = field(default_factory=dict)

    def operations(self, service: str) -> dict[str, Documented]:
        """What a service documents, by the operation's name, the open pages left out."""
        if service not in self.seen:
            document = self.apps[service].test_client().get("/openapi.json").get_json()
            self.seen[service] = {one.name: one for one in documented(document) if one.content["security"]}
        found: dict[str, Documented] = self.seen[service]
        return found

    def call(self, service: str, name: str, call: Call, **headers: str) -> TestResponse:
        """Call an operation as the company's own API does."""
        operation = self.operations(service)[name]
        path = re.sub(r"{(\w+)}", lambda part: call.path[part[1]], operation.path)
        given = {HEADER: KEY, **headers}
        client = self.apps[service].test_client()
        return client.open(path, method=operation.method, query_string=call.query, json=call.body, headers=given)

    def done(self, service: str, name: str, call: Call) -> Json:
        """Call what must succeed; returns the answer."""
        answer = self.call(service, name, call)
        assert answer.status_code < 300, (service, name, answer.get_data(as_text=True))
        found: Json = answer.get_json()
        return found

    def rows(self, service: str) -> dict[str, int]:
        """How many rows each table of a service has."""
        with self.engine(service).connect() as connection:
            if f"{service} tables" not in self.seen:
                known = MetaData()
                known.reflect(connection)
                self.seen[f"{service} tables"] = sorted(known.tables)
            counts = " UNION ALL ".join(
                f"SELECT '{name}', count(*) FROM {name}" for name in self.seen[f"{service} tables"]
            )
            return {row[0]: int(row[1]) for row in connection.execute(text(counts))}

    def sql(self, service: str, statement: str, **values: Any) -> None:
        with self.engine(service).begin() as connection:
            connection.execute(text(statement), values)

    def engine(self, service: str) -> Any:
        if f"{service} engine" not in self.seen:
            self.seen[f"{service} engine"] = create_engine(normalise_database_url(self.flows.databases[service]))
        return self.seen[f"{service} engine"]


def documented(document: Json) -> Iterator[Documented]:
    """Every operation of a document."""
    for path, item in document["paths"].items():
        for method, content in item.items():
            yield Documented(content["operationId"], method.upper(), path, content)


@contextmanager
def new_world(desk: Desk, make_database: Callable[[str], str]) -> Iterator[World]:
    """A house in which nobody has lived yet."""
    with ExitStack() as stack:
        urls = {"broker_url": stack.enter_context(broker())}
        changes = {**urls, "relayer": {"api_keys": (KEY,), **urls}, "relayer_api_key": KEY, "ops_four_eyes": True}
        flows = stack.enter_context(running_flows(desk, make_database, **changes))
        world = World(flows, _apps(flows))
        yield world
        for name, engine in world.seen.items():
            if name.endswith(" engine"):
                engine.dispose()


@contextmanager
def living_world(desk: Desk, make_database: Callable[[str], str]) -> Iterator[World]:
    """A house where Ann has stakes, rewards and a withdrawal that was paid."""
    with new_world(desk, make_database) as world:
        _live(world.flows)
        yield world


def _apps(flows: Flows) -> dict[str, Flask]:
    """Apps beside those that the flows call, on the same databases."""
    settings = flows.context.settings
    ledger = LedgerSettings(
        app_env="test",
        http_port=8101,
        internal_keys=(KEY,),
        database_url=normalise_database_url(flows.databases["ledger"]),
        pool_id=POOL,
    )
    rewards = reward_settings(flows.databases["rewards"])
    protocols = make_settings(
        flows.desk,
        flows.databases["protocols"],
        custody_address=settings.custody_address,
        ledger_url=settings.ledger_url,
    )
    apps = {
        "ledger": create_ledger(ledger),
        "rewards": create_rewards(replace(rewards, internal_keys=(KEY,))),
        "protocols": create_protocols(protocols),
        "relayer": create_relayer(flows.relayer.settings),
        "pool": create_pool(settings),
    }
    serve_pool(apps["pool"], flows.context)  # its hints go nowhere
    apps["relayer"].extensions["service"]._wake = lambda: None
    return apps


def _live(flows: Flows) -> None:
    flows.stake(ANN, 1_000 * ETHER)
    flows.stake("bob", 5 * ETHER)
    flows.desk.oracle.rebase(ETHER)
    flows.walking()
    unstaked = flows.ask("unstake", ANN, 3 * ETHER)
    flows.ask("reward_claim", "bob")
    flows.settle()
    flows.desk.oracle.finalize()
    flows.claims()
    flows.settle()
    assert flows.request(unstaked)["status"] == "completed"
    flows.reconcile()
