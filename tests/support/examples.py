"""The examples of the OpenAPI documents: real answers, taken from a run of every operation.

``python -m tests.support.examples`` runs all of them in one house and writes `examples.json` beside each service's routes and
`docs/api` anew. What differs between two runs (ids, hashes, times) is replaced by something as plausible that does not.
"""

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from apps.common.openapi import EXAMPLES
from apps.common.openapi_components import REQUEST_ID
from apps.local import generated
from migrations import runner
from tests.support.endpoints.call import Call, Json, Operation
from tests.support.endpoints.refused import REFUSED
from tests.support.endpoints.tables import TABLES
from tests.support.endpoints.world import World, living_world
from tests.support.lido import start_desk
from tests.support.postgres import Server, start_postgres

ROOT = Path(__file__).parents[2]
# What the things that a call acts upon are named after: a user, a pool, a message.
NAMES = {"pool": "user-", "rewards": "pool-"}
MADE, LATER = "2026-01-31T12:00:00.000000Z", "2026-01-31T12:00:12.000000Z"
# Lido reports once a day; the node of a run reports when it is told to.
PACE: Json = {"time_elapsed_sec": 86_400, "elapsed_sec": 604_800, "apr": "0.031415", "date": "2026-01-31"}
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_HASH = re.compile(r"\b(0x)?[0-9a-f]{64}\b")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def path_of(service: str) -> Path:
    """Where a service's examples are kept: beside its routes."""
    return ROOT / ("relayer/api" if service == "relayer" else f"apps/{service}") / EXAMPLES


def record(world: World) -> dict[str, Json]:
    """Call every operation, the writes twice, and what is refused; returns the examples of each service."""
    recorder = _Recorder(world)
    for service, table in TABLES.items():
        for number, (name, operation) in enumerate(table.items()):
            recorder.take(service, name, operation, f"{NAMES.get(service, 'message-')}{1001 + number}")
        for name, call, headers in REFUSED[service]:
            recorder.refused(service, name, call, headers)
    return {service: _plausible(found) for service, found in recorder.found.items()}


class _Recorder:
    def __init__(self, world: World) -> None:
        self.world = world
        self.found: dict[str, Json] = {service: {"problems": {}} for service in TABLES}

    def take(self, service: str, name: str, operation: Operation, given: str) -> None:
        """The first answer and, of a write, the one to the same call again: a replay, or a refusal."""
        asked: Json = {}
        answers: Json = {}
        for call in self._calls(service, name, operation, given):
            asked = asked or {key: value for key, value in vars(call).items() if value}
            answer = self.world.call(service, name, call)
            if answer.status_code < 300:
                text = answer.get_data(as_text=True)
                answers.setdefault(str(answer.status_code), answer.get_json() if answer.is_json else text)
            else:
                self._problem(service, answer.get_json())
        assert answers, (service, name, answer.get_json())
        self.found[service][name] = {"request": asked, "answers": answers}

    def _calls(self, service: str, name: str, operation: Operation, given: str) -> Iterator[Call]:
        for number, prepare in enumerate(operation.prepared):
            call = prepare(self.world, f"{given}{'b' * number}")
            yield from [call] * (2 if self.world.operations(service)[name].writes else 1)

    def refused(self, service: str, name: str, call: Call, headers: dict[str, str]) -> None:
        answer = self.world.call(service, name, call, **headers)
        assert answer.status_code >= 400, (service, name, answer.get_json())
        self._problem(service, answer.get_json())

    def _problem(self, service: str, body: Json) -> None:
        self.found[service]["problems"].setdefault(body["code"], body)


def _plausible(value: Any) -> Any:
    """The same, with fixed ids, hashes and times; equal ones stay equal."""
    seen: dict[str, str] = {}

    def identity(found: re.Match[str]) -> str:
        return seen.setdefault(found[0], f"01997c5a-8f00-7000-8000-{len(seen) + 1:012x}")

    def digest(found: re.Match[str]) -> str:
        made = hashlib.sha256(str(len(seen)).encode()).hexdigest()
        return seen.setdefault(found[0], f"{found[1] or ''}{made}")

    def walk(value: Any, key: str) -> Any:
        if isinstance(value, dict):
            return {name: PACE.get(name, walk(item, name)) for name, item in value.items()}
        if isinstance(value, list):
            return [walk(item, key) for item in value]
        if not isinstance(value, str):
            return value
        if key == "request_id":
            return REQUEST_ID
        if key == "secret":
            return "whsec_shown-in-this-answer-and-never-again"
        text = _UUID.sub(identity, _HASH.sub(digest, value))
        return _TIME.sub(MADE if key == "created_at" else LATER, text)

    return walk(value, "")


def database_maker(server: Server) -> Callable[[str], str]:
    """Makes migrated databases on a server."""

    def make(service: str) -> str:
        url = server.create(service)
        runner.upgrade(service, url)
        return url

    return make


def main() -> int:
    os.environ["LOG_LEVEL"] = "CRITICAL"
    with start_postgres() as server, start_desk() as desk, living_world(desk, database_maker(server)) as world:
        found = record(world)
    for service, examples in found.items():
        path_of(service).write_text(json.dumps(examples, indent=1, ensure_ascii=False) + "\n")
    return generated.main([])


if __name__ == "__main__":
    sys.exit(main())
