"""Messages whose effect is on the chain already, by a transaction that this database did not make.

After a restored backup a message may be queued here, or be posted again, though a transaction that the backup does not
know has executed it. Nothing tells such a transaction from a stranger's with the same content, so nothing is guessed:
the message ends `conflict`, each message for one such transaction, and ops decide. A trigger on `messages` refuses
every other way out of `queued` for them, whatever crosses with a release.
"""

from sqlalchemy import and_, exists, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from apps.common.database import transaction
from relayer.context import RelayerContext
from relayer.signing.policy import Refusal
from relayer.signing.preflight import end
from relayer.store.models import ForeignClaim, ForeignTransaction, Message

_SAME_PAYLOAD = and_(
    ForeignTransaction.chain_id == Message.chain_id,
    ForeignTransaction.address == Message.from_address,
    ForeignTransaction.to_address == Message.to_address,
    ForeignTransaction.value_wei == Message.value_wei,
    ForeignTransaction.data == Message.data,
    ForeignTransaction.success.is_(True),
    ~exists().where(
        ForeignClaim.chain_id == ForeignTransaction.chain_id,
        ForeignClaim.address == ForeignTransaction.address,
        ForeignClaim.nonce == ForeignTransaction.nonce,
    ),
)


def end_done(context: RelayerContext) -> list[str]:
    """End each queued message that equals a successful foreign transaction no message has claimed; returns their ids.

    The oldest message takes the lowest nonce.
    """
    done = (
        select(Message)
        .where(Message.status == "queued", exists().where(_SAME_PAYLOAD))
        .order_by(Message.seq)
        .with_for_update()
    )
    with transaction(context.sessions) as session:
        return [row.message_id for row in session.scalars(done).all() if _end(session, row)]


def _end(session: Session, row: Message) -> bool:
    found = _claim(session, row.message_id)
    if found is None:
        return False
    detail = (
        f"Transaction {found.tx_hash} of the same sender, receiver, value and data is in block {found.block_number}, "
        "and no message here made it."
    )
    end(session, row.message_id, "conflict", Refusal("done_by_foreign_transaction", detail))
    return True


def _claim(session: Session, message_id: str) -> ForeignTransaction | None:
    """Bind the message to a foreign transaction of its payload, and return that; None where there is none left."""
    found = session.scalars(
        select(ForeignTransaction)
        .join(Message, _SAME_PAYLOAD)
        .where(Message.message_id == message_id)
        .order_by(ForeignTransaction.nonce)
        .limit(1)
    ).one_or_none()
    if found is None:
        return None
    values = {"chain_id": found.chain_id, "address": found.address, "nonce": found.nonce, "message_id": message_id}
    # Another pump may claim it at this very moment: then this message is looked at again at the next tick.
    claimed = session.scalars(
        insert(ForeignClaim).values(**values).on_conflict_do_nothing().returning(ForeignClaim.nonce)
    ).one_or_none()
    return None if claimed is None else found
