"""A batch's transactions at the relayer: stored before they are sent, sent under a stable message_id, then followed.

A stored transaction is never built again: the relayer would rightly refuse the same message_id with other calldata.
"""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from apps.clients.shapes import protocols as shapes
from apps.clients.shapes.relayer import NewTransaction, Transaction
from apps.common.database import transaction
from apps.flow.outcome import Park, Wait
from apps.flow.row import Reason, reason
from apps.pool import effects
from apps.pool.context import PoolContext
from apps.pool.models import Batch, BatchTransaction, UnsignedTransaction
from apps.pool.states import BATCH_TERMINAL, UNDER_WAY, WITHOUT_EFFECT, BatchKind, BatchStatus, TransactionStatus

# Rejections of the whole that say nothing of a member: a smaller one may pass.
TOO_MUCH = frozenset({"value_over_cap", "daily_value_over_cap", "gas_limit_too_low"})
# Rejections by how the relayer is set up: the same passes once that is mended.
SET_UP = frozenset({"not_configured", "unknown_signer", "wrong_signer", "destination_not_allowed"})
POLL_SEC = 1.0


@dataclass(frozen=True)
class Confirmed:
    """It is final, with its effect."""


@dataclass(frozen=True)
class Failed:
    """It ended without effect and never will have one. `code` and `detail` are the decoded revert's or the relayer's reason;
    `passing` is the code of a cause that passes by itself, where it is one; `rejected` says that it was never signed."""

    code: str
    detail: str
    passing: str | None
    rejected: bool

    @property
    def too_much(self) -> bool:
        """Whether a smaller one may pass."""
        return self.rejected and self.code in TOO_MUCH


def message_id(batch: Batch, purpose: str) -> str:
    """The name of this try: the try grows only when the last one is settled and had no effect."""
    return effects.batch_transaction(batch.kind, batch.id, purpose, batch.try_number)


def stored(context: PoolContext, batch: Batch, purpose: str) -> UnsignedTransaction | None:
    """The unsigned transaction of this try, once it was stored."""
    with transaction(context.sessions) as session:
        return session.get(UnsignedTransaction, message_id(batch, purpose))


def store(session: Session, batch: Batch, purpose: str, unsigned: shapes.UnsignedTransaction) -> None:
    """Keep an unsigned transaction with its batch, in the step's own checkpoint, before it is sent."""
    session.add(
        UnsignedTransaction(
            message_id=message_id(batch, purpose),
            batch_id=batch.id,
            from_address=unsigned.sender,
            to_address=unsigned.to,
            data=unsigned.data,
            value_wei=unsigned.value_wei,
            gas_limit=unsigned.gas_limit,
        )
    )
    session.flush()


def send(context: PoolContext, batch: Batch, purpose: str) -> Transaction:
    """Hand a stored transaction to the relayer; again is harmless. Returns the relayer's view."""
    unsigned = stored(context, batch, purpose)
    if unsigned is None:
        raise LookupError(f"{message_id(batch, purpose)} was not stored before sending")
    sent = context.relayer.send(
        NewTransaction(
            message_id=unsigned.message_id,
            purpose=purpose,
            sender=unsigned.from_address,
            to=unsigned.to_address,
            data=unsigned.data,
            value_wei=unsigned.value_wei,
            gas_limit=unsigned.gas_limit,
        )
    )
    return _remember(context, batch, purpose, sent)


def follow(context: PoolContext, batch: Batch, purpose: str) -> Confirmed | Failed | Wait | Park:
    """How a sent transaction stands: ended one way or the other, or what its batch is to do meanwhile. One that the relayer
    does not know is sent again. A conflict is never retried: ops decide."""
    found = context.relayer.transaction(message_id(batch, purpose))
    sent = send(context, batch, purpose) if found is None else _remember(context, batch, purpose, found)
    return standing(sent)


def standing(sent: Transaction) -> Confirmed | Failed | Wait | Park:
    """What the relayer's word on a transaction means for whoever sent it."""
    status = sent.status
    if status == TransactionStatus.CONFIRMED:
        return Confirmed()
    if status == TransactionStatus.CONFLICT:
        return Park(reason("conflict", "Another sender used the signing key's nonce; see the relayer's message."))
    if status in WITHOUT_EFFECT:
        code, detail = failure_of(sent)
        return Failed(code, detail, sent.passing, rejected=status == TransactionStatus.REJECTED)
    # While the relayer does not sign it yet, its reason is the sender's.
    return Wait(POLL_SEC, _reason(sent) if status == TransactionStatus.QUEUED else None)


def failure_of(sent: Transaction) -> tuple[str, str]:
    """Code and detail of why a transaction had no effect: the decoded revert, and where that or its text is missing (a
    contract may revert with an empty one) the relayer's reason."""
    told = [(why.name, why.detail) for why in (sent.revert,) if why is not None]
    told += [(why.code, why.detail) for why in (sent.reason,) if why is not None]
    code = next((code for code, _ in told if code), str(sent.status))
    return code, next((detail for _, detail in told if detail), f"The transaction ended {sent.status}.")


def wait_for_walk(context: PoolContext, batch: Batch) -> Wait:
    """It is final: the walk, which books it, is on its way."""
    context.publish("tasks.walk.run_pool", batch.pool_id)
    return Wait(2 * POLL_SEC)


def refresh_open_transactions(context: PoolContext, pool_id: str) -> None:
    """Bring hashes and statuses of all unfinished batches' transactions up to date, for the walk to recognise them."""
    _refresh(context, Batch.pool_id == pool_id, Batch.status.not_in(BATCH_TERMINAL))


def refresh_parked_requests(context: PoolContext, pool_id: str) -> None:
    """The same for the withdrawal requests of parked batches, whose steps do not run while they are parked."""
    parked = Batch.pool_id == pool_id, Batch.status == BatchStatus.NEEDS_ATTENTION, Batch.kind == BatchKind.UNSTAKE
    _refresh(context, *parked, BatchTransaction.purpose == "request", BatchTransaction.status.in_(UNDER_WAY))


def _refresh(context: PoolContext, *which: ColumnElement[bool]) -> None:
    with transaction(context.sessions) as session:
        query = select(BatchTransaction.message_id).join(Batch, Batch.id == BatchTransaction.batch_id).where(*which)
        names = session.scalars(query).all()
    found = context.relayer.known(names)
    with transaction(context.sessions) as session:
        for sent in sorted(found, key=lambda sent: sent.message_id):
            session.execute(
                update(BatchTransaction)
                .where(BatchTransaction.message_id == sent.message_id)
                .values(status=sent.status, tx_hash=sent.tx_hash),
                execution_options={"synchronize_session": False},
            )


def _reason(sent: Transaction) -> Reason | None:
    return None if sent.reason is None else reason(sent.reason.code, sent.reason.detail)


def _remember(context: PoolContext, batch: Batch, purpose: str, sent: Transaction) -> Transaction:
    values = {"status": sent.status, "tx_hash": sent.tx_hash}
    statement = insert(BatchTransaction).values(
        message_id=sent.message_id, batch_id=batch.id, purpose=purpose, **values
    )
    with transaction(context.sessions) as session:
        session.execute(statement.on_conflict_do_update(index_elements=["message_id"], set_=values))
    return sent
