"""The names of effects, each made in one place; and the table of states, which knows every status."""

import re
from pathlib import Path

import pytest

from apps.pool import effects
from apps.pool.states import (
    BATCH_TERMINAL,
    FIRST_STATUS,
    REQUEST_TERMINAL,
    BatchKind,
    BatchStatus,
    RequestKind,
    RequestStatus,
    batch_transitions,
    request_transitions,
)

ROOT = Path(__file__).parents[3]
# Where names are made, and where the reports read them back.
NAMING = {"effects.py", "causes.py"}
SOURCES = sorted(
    path for folder in ("apps/pool", "tasks") for path in (ROOT / folder).rglob("*.py") if path.name not in NAMING
)
# The first part of every name, as an f-string or a literal would begin.
PREFIXES = (
    "stake|unstake|reward-claim|payout|deposit|auto-claim|rebase|donation|settle|gas|dust|manual|claim|resolution"
    "|reconciliation"
)


def test_effects__sources_of_the_pool__make_no_name_themselves() -> None:
    found = [
        f"{path.name}: {match.group()}"
        for path in SOURCES
        for match in re.finditer(rf"f?[\"'](?:{PREFIXES}):[^\"']*|[\"']:(?:book|covered|cut|fee)\b", path.read_text())
    ]
    assert found == []


def test_effects__same_arguments__different_names() -> None:
    made = [effect(*(["x"] * effect.__code__.co_argcount)) for effect in effects.EFFECTS]
    # One name for what goes into index and ledger; the company's shortfall and loss are another request's by their ids.
    assert len(made) == len(set(made))


@pytest.mark.parametrize("kind", RequestKind)
def test_requests__from_the_first_status__an_end_is_reached_from_everywhere(kind: RequestKind) -> None:
    table = {status: nexts for (of, status), nexts in request_transitions().items() if of == kind}
    reached = {FIRST_STATUS[kind]}
    while more := {other for status in reached - REQUEST_TERMINAL for other in table[status]} - reached:
        reached |= more
    assert reached - REQUEST_TERMINAL == set(table), "each open status is reached, and what follows it is known"
    assert RequestStatus.NEEDS_ATTENTION in reached
    assert REQUEST_TERMINAL & reached


@pytest.mark.parametrize("kind", BatchKind)
def test_batches__from_the_first_status__an_end_is_reached_from_everywhere(kind: BatchKind) -> None:
    table = {status: nexts for (of, status), nexts in batch_transitions().items() if of == kind}
    reached = {BatchStatus.BATCHED}
    while more := {other for status in reached - BATCH_TERMINAL for other in table[status]} - reached:
        reached |= more
    assert reached - BATCH_TERMINAL == set(table)
    assert reached >= BATCH_TERMINAL
