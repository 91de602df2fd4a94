"""Every write of every service: many callers at once with one key have one effect, and no nonsense has any."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.local import generated
from apps.common.errors import error_catalogue
from tests.support.endpoints.call import Call, Json
from tests.support.endpoints.tables import TABLES
from tests.support.endpoints.world import World

CALLERS = 50
NAMES = count()
# Reads that change nothing, though they are asked by POST, and so is resuming what is not paused.
WRITES = [
    pytest.param(service, name, id=f"{service}-{name}")
    for service, table in TABLES.items()
    for name in table
    if generated  # the documents say which are writes: see `writes`
]


@pytest.mark.parametrize(("service", "name"), WRITES)
def test_write__fifty_callers_at_once__one_effect_and_equal_answers(service: str, name: str, world: World) -> None:
    operation = TABLES[service][name]
    alone = operation.prepare(world, f"alone{next(NAMES)}")
    once = _grown(world, service, lambda: [world.call(service, name, alone)])
    call = operation.prepare(world, f"raced{next(NAMES)}")
    answers: list[Any] = []
    grown = _grown(world, service, lambda: answers.extend(_race(world, service, name, call)))
    if operation.each:
        assert set(grown) == set(once) <= operation.each
        assert all(answer.status_code == 201 for answer in answers)
        return
    assert grown == once
    assert _told([answer for answer in answers if answer.status_code < 300]) == 1
    refused = {answer.get_json()["code"] for answer in answers if answer.status_code >= 300}
    assert refused <= operation.again
