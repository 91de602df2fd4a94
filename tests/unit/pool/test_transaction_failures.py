"""What a batch is told of a transaction that ended without effect."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from apps.clients.shapes.common import Reason
from apps.clients.shapes.relayer import Revert, Transaction, TransactionStatus
from apps.pool.flows.transactions import failure_of

NOW = datetime(2026, 1, 31, tzinfo=UTC)
NOWHERE = "0x" + "00" * 20
SENT = Transaction(
    message_id="m",
    purpose="submit",
    status=TransactionStatus.REVERTED,
    reason=None,
    sender=NOWHERE,
    to=NOWHERE,
    data="0x",
    value_wei=0,
    gas_limit=21_000,
    deadline=None,
    nonce=0,
    tx_hash=None,
    block_number=None,
    block_hash=None,
    confirmations=0,
    observed_block=None,
    gas_cost_wei=None,
    revert=None,
    passing=None,
    attempts=[],
    created_at=NOW,
    updated_at=NOW,
)
REASON = Reason("reverted", "It was mined and failed.")


@pytest.mark.parametrize(
    ("revert", "why", "expected"),
    [
        (Revert("Error", "STAKE_LIMIT"), REASON, ("Error", "STAKE_LIMIT")),
        (Revert("Error", ""), REASON, ("Error", REASON.detail)),  # require(false, "")
        (Revert("Error", ""), None, ("Error", "The transaction ended reverted.")),
        (None, REASON, (REASON.code, REASON.detail)),
        (None, None, ("reverted", "The transaction ended reverted.")),
    ],
)
def test_failure__what_is_known__the_revert_then_the_reason_then_the_status(
    revert: Revert | None, why: Reason | None, expected: tuple[str, str]
) -> None:
    assert failure_of(replace(SENT, revert=revert, reason=why)) == expected
