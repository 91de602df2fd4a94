"""POST /v1/walk/resolve and its neighbours over HTTP: what is refused, and that nothing comes of it."""

from typing import Any

import pytest
from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert

from apps.common.database import transaction
from apps.pool.models import Walk
from tests.support.pool import FullHouse
from tests.support.protocols import POOL

HALT = {
    "code": "foreign_out", "detail": "3 shares left.", "block_number": 7, "log_index": 2, "tx_hash": "0xaa",
    "kind": "foreign_out", "shares": "3", "amount_wei": "4", "effect": None,
}  # fmt: skip
GIVEN: dict[str, Any] = {
    "message_id": "m:1", "action": "book_loss", "code": "foreign_out", "block_number": 7, "log_index": 2,
    "account": "@fees", "by": "olga", "why": "seen",
}  # fmt: skip


def halted(full: FullHouse) -> None:
    with transaction(full.pool.context.sessions) as session:
        session.execute(insert(Walk).values(id=POOL, status="halted", halt=HALT, next_run_at=func.now()))


def test_resolve__of_the_halt_as_read__201_then_200_with_the_header_and_the_walk_is_woken(full: FullHouse) -> None:
    halted(full)
    first, again = full.post("/v1/walk/resolve", GIVEN), full.post("/v1/walk/resolve", GIVEN)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.headers["Idempotent-Replay"] == "true"
    assert first.get_json() == again.get_json()
    assert first.get_json()["halt"] == HALT
    assert ("tasks.walk.run_pool", POOL) in full.pool.hints
    assert full.get("/v1/walk")["halt"]["ways_out"][0]["action"] == "book_loss"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"action": "forget_it"}, "action"),
        ({"action": "adopt_as_company"}, "action"),
        ({"account": None}, "account"),
        ({"account": "@custody"}, "account"),
        ({"by": ""}, "by"),
        ({"why": None}, "why"),
        ({"evidence": "x" * 1001}, "evidence"),
        ({"block_number": -1}, "block_number"),
        ({"log_index": 2**60}, "log_index"),
        ({"gas_cost_wei": "-1"}, "gas_cost_wei"),
        ({"gas_cost_wei": 5}, "gas_cost_wei"),
        ({"approved_by": "paul"}, "approved_by"),
        ({"pool_id": "a/b"}, "pool_id"),
    ],
)
def test_resolve__a_wrong_field__422_names_it_and_nothing_is_kept(
    full: FullHouse, change: dict[str, Any], field: str
) -> None:
    halted(full)
    answer = full.post("/v1/walk/resolve", {**GIVEN, **change})
    assert (answer.status_code, list(answer.get_json()["errors"])) == (422, [field])
    assert full.get("/v1/walk/resolutions")["items"] == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"code": "unknown_submit"}, "halt_differs"),
        ({"log_index": 3}, "halt_differs"),
        ({"code": None}, "halt_differs"),
    ],
)
def test_resolve__of_another_halt__409_and_nothing_is_kept(full: FullHouse, change: dict[str, Any], code: str) -> None:
    halted(full)
    answer = full.post("/v1/walk/resolve", {**GIVEN, **change})
    assert (answer.status_code, answer.get_json()["code"]) == (409, code)
    assert full.get("/v1/walk/resolutions")["items"] == []


def test_resolve__a_pool_never_walked__409_not_halted(full: FullHouse) -> None:
    answer = full.post("/v1/walk/resolve", {**GIVEN, "pool_id": "nobodys"})
    assert (answer.status_code, answer.get_json()["code"]) == (409, "not_halted")


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_decision__about_nothing__404(full: FullHouse, verb: str) -> None:
    answer = full.post(f"/v1/walk/resolutions/none/{verb}", {"by": "paul"})
    assert answer.status_code == 404


def test_release__of_no_batch__404(full: FullHouse) -> None:
    answer = full.post("/v1/batches/none/release", {"message_id": "m:1", "by": "olga", "why": "?"})
    assert (answer.status_code, answer.get_json()["code"]) == (404, "not_found")
