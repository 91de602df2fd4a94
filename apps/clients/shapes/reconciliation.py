"""Reconciliations of books and chain, as protocols takes and answers them. Amounts are wei."""

from dataclasses import dataclass

import marshmallow as ma

from apps.clients.shapes.common import IdPageQuery, Reason, one_of
from apps.clients.shapes.protocols import BLOCK
from apps.common import wire
from apps.common.shapes import SignedWei, StrictInteger, Time, Wei, Whole, given, schema_of


@dataclass(frozen=True)
class RewardSums:
    """What rewards says at the same moment: owed to stakers, and the sum of all weights. Either may be below zero, the
    weight where the company's own withdrawals are greater than all stakes."""

    owed_wei: SignedWei
    weight_wei: SignedWei


@dataclass(frozen=True, kw_only=True)
class NewReconciliation:
    """At which block books and chain are compared, the money horizon where none is named; `rewards` adds the lines that
    need them."""

    message_id: str = given(wire.message_id_field)
    block: int | None = given(StrictInteger, load_default=None, allow_none=True, validate=BLOCK)
    rewards: RewardSums | None = given(
        ma.fields.Nested, nested=schema_of(RewardSums, wire.BodySchema), load_default=None, allow_none=True
    )


@dataclass(frozen=True)
class ReconciliationLine:
    """One comparison. `drift_wei` is found minus expected; `tolerance_wei` is always 0."""

    name: str
    expected_wei: SignedWei
    found_wei: SignedWei
    drift_wei: SignedWei
    tolerance_wei: Wei
    ok: bool


@dataclass(frozen=True)
class Reconciliation:
    """Books against chain at one block. `verdict` is ``ok`` or ``drift``; `reason` is always None, the lines tell why."""

    id: str
    message_id: str
    block_number: Whole | None
    block_hash: str | None
    verdict: str
    reason: Reason | None
    lines: list[ReconciliationLine]
    created_at: Time


@dataclass(frozen=True, kw_only=True)
class ReconciliationsQuery(IdPageQuery):
    """Runs, newest first, of one verdict where one is named. ``error`` is taken as ever, and no run has it."""

    verdict: str | None = given(ma.fields.String, load_default=None, validate=one_of(("ok", "drift", "error")))


@dataclass(frozen=True)
class ReconciliationPage:
    """Newest first; `next` is the cursor of the next page."""

    items: list[Reconciliation]
    next: str | None
