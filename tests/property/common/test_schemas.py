"""The short way through a schema finds what marshmallow's own way finds: the same values, the same faults."""

from datetime import UTC, datetime
from typing import Any

import marshmallow as ma
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.clients.shapes import pool
from apps.clients.shapes.ledger import Movement, NewMovement, NewMovementBatch
from apps.clients.shapes.pool_states import RequestKind, RequestStatus
from apps.clients.shapes.relayer import NewTransaction
from apps.clients.shapes.rewards import NewStakeDeltas, Position
from apps.common.schemas import PlainSchema
from apps.common.shapes import schema_of
from apps.common.wire import BodySchema, QuerySchema

SCHEMAS: list[ma.Schema] = [
    *(schema_of(shape, BodySchema)() for shape in (pool.NewStake, pool.NewUnstake, NewTransaction)),
    *(schema_of(shape, BodySchema)() for shape in (NewMovement, NewMovementBatch, NewStakeDeltas)),
    schema_of(pool.RequestsQuery, QuerySchema)(),
    *(schema_of(shape)() for shape in (Movement, Position, pool.Request, pool.Portfolio)),
]
NAMES = sorted({field.data_key or name for schema in SCHEMAS for name, field in schema.fields.items()})
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from(
        ["", "0", "1", "max", "-5", "007", "queued", "stake", "deposit", "ann", "@ann", "..", "0x", "0x00"]
    ),
    st.sampled_from(["2026-01-31T12:00:00Z", "2026-01-31", "0x" + "ab" * 20, str(2**256), str(2**256 - 1)]),
    st.lists(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["1", "ann", None, 5]), max_size=6), max_size=3),
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["1", "ann", None, 5]), max_size=6),
)
# Likely values, so that many bodies are in order.
LIKELY: dict[str, Any] = {
    "message_id": "m:1", "user_id": "ann", "pool_id": "main", "amount_wei": "5", "kind": "deposit", "to": "0x" + "ab" * 20,
    "data": "0x", "value_wei": "1", "gas_limit": 21_000, "id": 1, "reference": None, "created_at": "2026-01-31T12:00:00Z",
    "staked_wei": "1", "exiting_wei": "0", "pending_wei": "-1", "claimed_wei": "0", "reward_debt": "5", "updated_at": None,
    "limit": "5", "deltas": [{"message_id": "m", "user_id": "u", "staked_delta_wei": "1", "exiting_delta_wei": "0"}],
}  # fmt: skip


def bodies(schema: ma.Schema) -> st.SearchStrategy[dict[str, Any]]:
    names = [field.data_key or name for name, field in schema.fields.items()]
    usual = {name: LIKELY[name] for name in names if name in LIKELY}
    changes = st.dictionaries(st.sampled_from([*names, "unknown"]), VALUES, max_size=3)
    left_out = st.sets(st.sampled_from(names), max_size=1)
    return st.builds(
        lambda changed, gone: {name: value for name, value in {**usual, **changed}.items() if name not in gone},
        changes,
        left_out,
    )


def came_to(load: Any, schema: ma.Schema, body: dict[str, Any]) -> Any:
    """The values, or the faults."""
    try:
        return load(schema, body)
    except ma.ValidationError as error:
        return error.messages


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: type(schema).__name__)
@settings(deadline=None)
@given(data=st.data())
def test_load__any_body__is_what_marshmallow_makes_of_it(schema: ma.Schema, data: st.DataObject) -> None:
    body = data.draw(bodies(schema))
    assert isinstance(schema, PlainSchema)
    assert came_to(PlainSchema.load, schema, body) == came_to(ma.Schema.load, schema, body)


def test_load__plain_bodies__take_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ma.Schema, "load", None)
    body = {"message_id": "m:1", "user_id": "ann", "amount_wei": "5"}
    assert schema_of(pool.NewStake, BodySchema)().load(body) == pool.NewStake(
        message_id="m:1", user_id="ann", amount_wei=5
    )


def test_dump__nested_shape__is_what_marshmallow_makes_of_it() -> None:
    moment = datetime(2026, 1, 31, 12, tzinfo=UTC)
    shown = pool.Request(
        id="r",
        message_id="m",
        kind=RequestKind.UNSTAKE,
        pool_id="main",
        user_id="ann",
        amount_wei=2**255,
        settled_wei=None,
        status=RequestStatus.WAITING,
        reason=None,
        batch_id="b",
        withdrawals=[pool.RequestWithdrawal(7, 100, None)],
        transactions=[],
        next=pool.NextStep("finalize", None),
        timeline=[pool.TimelineEntry(RequestStatus.WAITING, moment, None)],
        created_at=moment,
        updated_at=moment,
    )
    schema = schema_of(pool.Request)()
    assert isinstance(schema, PlainSchema)
    assert PlainSchema.dump(schema, shown) == ma.Schema.dump(schema, shown)
