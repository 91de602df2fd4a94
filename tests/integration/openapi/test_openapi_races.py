"""Every write of every service: many callers at once with one key have one effect, and nonsense has none."""

import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator
from werkzeug.test import TestResponse

from apps.common.auth import HEADER
from apps.local.api_documents import SERVICES
from apps.local.generated import DOCS
from tests.support.endpoints.call import Call, Json, Operation
from tests.support.endpoints.nonsense import broken_text, mutated
from tests.support.endpoints.tables import TABLES
from tests.support.endpoints.world import World, documented
from tests.support.protocols import KEY

CALLERS = 50
NAMES = count()
DOCUMENTS: dict[str, Json] = {
    service: json.loads((DOCS / "api" / f"{service}.json").read_text()) for service in SERVICES
}
WRITES = [
    pytest.param(service, one.name, id=f"{service}-{one.name}")
    for service in SERVICES
    for one in documented(DOCUMENTS[service])
    if one.writes
]
# What goes on after it was asked for: a replay shows it as it stands by then. A secret is shown once.
LIVE = {
    *("status", "reason", "next", "timeline", "updated_at", "batch_id", "transactions"),
    "secret",
    *("amount_wei", "settled_wei", "applied_at", "decided_at", "balance_wei", "observed_block"),
}


# Their key must be in a state that what other operations prepare by hand with it may have put it out of: they are raced in
# a house of their own.
OF_A_KEY = {("relayer", "speed_up_transaction"), ("relayer", "release_signer")}
RACED = [
    pytest.param(*one.values, id=one.id, marks=pytest.mark.prove) if one.values in OF_A_KEY else one for one in WRITES
]


@pytest.mark.parametrize(("service", "name"), RACED)
def test_write__fifty_callers_at_once__one_effect_and_equal_answers(service: str, name: str, world: World) -> None:
    operation = TABLES[service][name]
    alone = operation.prepare(world, f"alone{next(NAMES)}")
    once = grown(world, operation, lambda: world.call(service, name, alone))
    call = operation.prepare(world, f"raced{next(NAMES)}")
    answers: list[TestResponse] = []
    raced = grown(world, operation, lambda: answers.extend(race(world, service, name, call)))
    good = [answer for answer in answers if answer.status_code < 300]
    assert raced == once
    refused = {answer.get_json()["code"] for answer in answers if answer.status_code >= 300}
    assert (bool(good), refused <= operation.again) == (True, True), refused
    replays = [answer for answer in good if answer.headers.get("Idempotent-Replay") == "true"]
    assert len(set(map(lasting, replays))) <= 1
    if {"200", "201"} <= statuses(service, name) or ({"200", "202"} == statuses(service, name) and replays):
        assert len(good) - len(replays) == 1
        assert len(replays) == CALLERS - 1
    body = good[0].get_json()
    if "replayed" not in body and "differences" not in body:  # a batch counts what it has done, an audit is one each
        assert len(set(map(lasting, good))) == 1


@pytest.mark.parametrize("number", [40, pytest.param(400, marks=pytest.mark.prove)])
@pytest.mark.parametrize(("service", "name"), WRITES)
def test_write__of_nonsense__4xx_with_a_known_code_and_no_effect(
    service: str, name: str, number: int, world: World
) -> None:
    draw = random.Random(name)
    operation = world.operations(service)[name]
    known = {code for answer in answers_of(service, name) for code in answer.get("x-problem-codes", ())}
    good = TABLES[service][name].prepare(world, f"nonsense{next(NAMES)}")
    valid = validator(service, name)
    met: Counter[str] = Counter()

    def send() -> None:
        for turn in range(number):
            content: bytes | None = None
            if turn % 8 == 0:
                content = broken_text(good.body or {"a": 1}, draw)
            else:
                body = mutated(good.body or {}, draw)
                if not well_formed(valid, body):
                    content = json.dumps(body).encode()
            query = {"unknown": "1"} if turn % 8 == 1 or content is None else dict(good.query)
            path = operation.path.format(**good.path)
            headers = {HEADER: KEY, "Content-Type": "application/json"}
            answer = (
                world.apps[service]
                .test_client()
                .open(path, method=operation.method, query_string=query, data=content or b"", headers=headers)
            )
            assert 400 <= answer.status_code < 500, (content, query, answer.get_data(as_text=True))
            met[answer.get_json()["code"]] += 1

    assert grown(world, TABLES[service][name], send) == {}
    assert set(met) <= known
    assert met["invalid_input"] > 0


def race(world: World, service: str, name: str, call: Call) -> list[TestResponse]:
    """The same call from fifty callers that all begin at once."""
    start = threading.Barrier(CALLERS)

    def one(_: int) -> TestResponse:
        start.wait(timeout=60)
        return world.call(service, name, call)

    with ThreadPoolExecutor(CALLERS) as callers:
        return list(callers.map(one, range(CALLERS)))


def grown(world: World, operation: Operation, act: Callable[[], Any]) -> dict[str, int]:
    """Tables of all services by how many rows they have more, or less, after it, but for those that grow with every call."""
    before = all_rows(world)
    act()
    after = all_rows(world)
    changed = {table: after[table] - before[table] for table in after if table not in operation.each}
    changed = {table: rows for table, rows in changed.items() if not table.endswith(".audit_log")}  # each call of ops
    return {table: rows for table, rows in changed.items() if rows}


def all_rows(world: World) -> dict[str, int]:
    return {f"{service}.{table}": number for service in SERVICES for table, number in world.rows(service).items()}


def lasting(answer: TestResponse) -> str:
    """What of an answer does not change with time."""
    body = answer.get_json()
    return json.dumps({name: value for name, value in body.items() if name not in LIVE}, sort_keys=True)


def operation_of(service: str, name: str) -> Json:
    return next(one.content for one in documented(DOCUMENTS[service]) if one.name == name)


def statuses(service: str, name: str) -> set[str]:
    return {status for status in operation_of(service, name)["responses"] if status.startswith("2")}


def answers_of(service: str, name: str) -> list[Json]:
    shared = DOCUMENTS[service]["components"]["responses"]
    return [
        shared[answer["$ref"].rpartition("/")[2]] if "$ref" in answer else answer
        for answer in operation_of(service, name)["responses"].values()
    ]


def well_formed(valid: Draft202012Validator, body: Json) -> bool:
    try:
        return valid.is_valid(body)
    except UnicodeEncodeError:  # half of a pair of surrogates, which JSON can say and no text can hold
        return False


def validator(service: str, name: str) -> Draft202012Validator:
    """Of an operation's body; one that takes none takes the empty object."""
    body = operation_of(service, name).get("requestBody")
    schema = {"maxProperties": 0} if body is None else body["content"]["application/json"]["schema"]
    return Draft202012Validator({**schema, "components": DOCUMENTS[service]["components"]})
