"""A batch's transactions at the relayer: stored before they are sent, sent under a stable message_id, then followed.

A stored transaction is never built again: the relayer would rightly refuse the same message_id with other calldata.
"""

from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.dialects.postgresql import insert

from apps.clients.base import CallFailed
from apps.common.database import transaction
from apps.pool.context import PoolContext
from apps.pool.flows.leases import Wait
from apps.pool.models import Batch, BatchTransaction

# Ends of a relayer transaction that are not `confirmed`. A conflict is never retried: ops decide.
FAILED = frozenset({"reverted", "rejected", "expired", "cancelled"})
# Rejections of the whole that say nothing of a member: a smaller one may pass.
TOO_MUCH = frozenset({"value_over_cap", "daily_value_over_cap", "gas_limit_too_low"})
# Rejections by how the relayer is set up: the same passes once that is mended.
SET_UP = frozenset({"not_configured", "unknown_signer", "wrong_signer", "destination_not_allowed"})
POLL_SEC = 1.0


def message_id(batch: Batch, purpose: str) -> str:
    """``stake-batch:<id>:submit:<try>``: the try grows only when the last one is settled and had no effect."""
    return f"{batch.kind}-batch:{batch.id}:{purpose}:{batch.try_number}"


def stored(batch: Batch, purpose: str) -> dict[str, Any] | None:
    """The unsigned transaction of this try, once it was checkpointed."""
    found: dict[str, Any] | None = batch.context.get("transactions", {}).get(message_id(batch, purpose))
    return found


def with_transaction(batch: Batch, purpose: str, unsigned: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The batch's context with an unsigned transaction added, to be checkpointed before it is sent."""
    kept = {name: unsigned[name] for name in ("from", "to", "data", "value_wei", "gas_limit")}
    transactions = {**batch.context.get("transactions", {}), message_id(batch, purpose): kept}
    return {**batch.context, "transactions": transactions, **more}


def send(context: PoolContext, batch: Batch, purpose: str) -> dict[str, Any]:
    """Hand a stored transaction to the relayer; again is harmless. Returns the relayer's view."""
    unsigned = stored(batch, purpose)
    if unsigned is None:
        raise LookupError(f"{message_id(batch, purpose)} was not stored before sending")
    sent = context.relayer.send({"message_id": message_id(batch, purpose), "purpose": purpose, **unsigned})
    return _remember(context, batch, purpose, sent)


def follow(context: PoolContext, batch: Batch, purpose: str) -> dict[str, Any]:
    """Ask the relayer how a sent transaction stands; unknown there is answered by sending the same again."""
    found = context.relayer.transaction(message_id(batch, purpose))
    return send(context, batch, purpose) if found is None else _remember(context, batch, purpose, found)


def refresh_open_transactions(context: PoolContext, pool_id: str) -> None:
    """Bring hashes and statuses of all unfinished batches' transactions up to date, for the walk to recognise them."""
    _refresh(context, Batch.pool_id == pool_id, Batch.status.not_in(("completed", "failed")))


def refresh_parked_requests(context: PoolContext, pool_id: str) -> None:
    """The same for the withdrawal requests of parked batches, which nobody follows while they are parked."""
    under_way = BatchTransaction.status.in_(("queued", "signed", "broadcast", "mined"))
    parked = Batch.pool_id == pool_id, Batch.status == "needs_attention"
    _refresh(context, *parked, Batch.kind == "unstake", BatchTransaction.purpose == "request", under_way)


def _refresh(context: PoolContext, *which: ColumnElement[bool]) -> None:
    with transaction(context.sessions) as session:
        rows = session.execute(
            select(BatchTransaction, Batch).join(Batch, Batch.id == BatchTransaction.batch_id).where(*which)
        ).all()
    for row, batch in rows:
        found = context.relayer.transaction(row.message_id)
        if found is not None:
            _remember(context, batch, row.purpose, found)


def waiting(sent: dict[str, Any]) -> Wait:
    """Look again soon; while the relayer does not sign it yet, its reason is the batch's."""
    return Wait(POLL_SEC, sent.get("reason") if sent["status"] == "queued" else None)


def failure(sent: dict[str, Any]) -> tuple[str, str]:
    """Code and detail of why a transaction had no effect: the decoded revert, or the relayer's reason."""
    revert = sent.get("revert") or {}
    why = sent.get("reason") or {}
    detail = revert.get("detail") or why.get("detail") or f"The transaction ended {sent['status']}."
    return str(revert.get("name") or why.get("code") or sent["status"]), str(detail)


def _remember(context: PoolContext, batch: Batch, purpose: str, sent: dict[str, Any]) -> dict[str, Any]:
    if sent.get("message_id") is None:
        raise CallFailed("relayer answered without a message_id")
    values = {"status": sent["status"], "tx_hash": sent["tx_hash"]}
    statement = insert(BatchTransaction).values(
        message_id=sent["message_id"], batch_id=batch.id, purpose=purpose, **values
    )
    with transaction(context.sessions) as session:
        session.execute(statement.on_conflict_do_update(index_elements=["message_id"], set_=values))
    return sent
