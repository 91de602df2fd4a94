"""The states that the code knows and those that the database holds to are the same."""

import re

from sqlalchemy import text

from apps.common.database import transaction
from relayer.store.states import (
    FINAL,
    NEXT,
    OPEN,
    STATUSES,
    STORED_SIGNER_STATES,
    UNFINISHED,
    UNMINED,
    AttemptKind,
    Intent,
    NonceState,
)
from tests.support.relayer import House

QUOTED = re.compile(r"'([a-z]+)'")


def named(house: House, statement: str) -> set[str]:
    """The texts in quotes in a definition that the database keeps."""
    with transaction(house.context.sessions) as session:
        return set(QUOTED.findall(session.execute(text(statement)).scalar_one()))


def constraint(house: House, table: str, name: str) -> set[str]:
    return named(
        house,
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint "
        f"WHERE conrelid = '{table}'::regclass AND conname LIKE '%{name}'",
    )


def test_states__the_databases_constraints__know_the_same_names(house: House) -> None:
    assert constraint(house, "messages", "status_known") == set(STATUSES)
    assert constraint(house, "messages", "intent_known") == set(Intent)
    assert constraint(house, "signers", "state_known") == set(STORED_SIGNER_STATES)
    assert constraint(house, "slots", "state_known") == set(NonceState)
    assert constraint(house, "attempts", "kind_known") == set(AttemptKind)


def test_states__the_databases_triggers_and_index__agree_on_what_is_final(house: House) -> None:
    final = "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname LIKE 'messages_final%' AND NOT tgisinternal"
    assert named(house, final) == set(FINAL)
    unfinished = "SELECT indexdef FROM pg_indexes WHERE indexname = 'ix_messages_unfinished'"
    assert named(house, unfinished) == set(UNFINISHED)


def test_states__every_status__leads_to_an_end(house: House) -> None:
    assert set(FINAL) | set(UNFINISHED) == set(NEXT) and not set(FINAL) & set(UNFINISHED)
    assert set(UNMINED) < set(OPEN) < set(UNFINISHED)
    assert all(NEXT[status] >= {"confirmed", "conflict"} for status in OPEN)
    assert set().union(*NEXT.values()) == set(STATUSES) - {"queued"}
