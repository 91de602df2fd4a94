"""Messages whose effect is on the chain already, by an external transaction: one of our key that is not recorded here.

After a restored backup a message may be queued, or be posted again, though a transaction that the backup does not know has
executed it. Such a transaction looks like one that an operator sent by hand with the same content. So the relayer does not
guess: the message ends `conflict`, one message for each external transaction, and ops decide. A trigger on `messages`
refuses every other way out of `queued` for these messages, even where a release of the key happens at the same moment.
"""

from sqlalchemy import and_, exists, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from apps.common.database import transaction
from relayer.context import RelayerContext
from relayer.signing.policy import Refusal
from relayer.store.messages import end
from relayer.store.models import ExternalMatch, ExternalTransaction, Message
from relayer.store.states import TransactionStatus

_SAME_PAYLOAD = and_(
    ExternalTransaction.chain_id == Message.chain_id,
    ExternalTransaction.address == Message.from_address,
    ExternalTransaction.to_address == Message.to_address,
    ExternalTransaction.value_wei == Message.value_wei,
    ExternalTransaction.data == Message.data,
    ExternalTransaction.success.is_(True),
    ~exists().where(
        ExternalMatch.chain_id == ExternalTransaction.chain_id,
        ExternalMatch.address == ExternalTransaction.address,
        ExternalMatch.nonce == ExternalTransaction.nonce,
    ),
)


def end_done_externally(context: RelayerContext) -> list[str]:
    """End the queued messages that an external transaction has executed already; returns their ids.

    Such a transaction succeeded, and has the message's sender, receiver, value and data. Where there are several of each,
    they are paired by age and by nonce: the oldest message with the lowest nonce.
    """
    done = (
        select(Message)
        .where(Message.status == TransactionStatus.QUEUED, exists().where(_SAME_PAYLOAD))
        .order_by(Message.seq)
        .with_for_update()
    )
    with transaction(context.sessions) as session:
        return [row.message_id for row in session.scalars(done).all() if _end(session, row)]


def _end(session: Session, row: Message) -> bool:
    found = _match(session, row.message_id)
    if found is None:
        return False
    detail = (
        f"Transaction {found.tx_hash} of the same sender, receiver, value and data is in block {found.block_number}, "
        "and no message here made it."
    )
    end(session, row.message_id, TransactionStatus.CONFLICT, Refusal("done_by_foreign_transaction", detail))
    return True


def _match(session: Session, message_id: str) -> ExternalTransaction | None:
    """Link the message to an external transaction of its payload, and return that; None where none is left."""
    found = session.scalars(
        select(ExternalTransaction)
        .join(Message, _SAME_PAYLOAD)
        .where(Message.message_id == message_id)
        .order_by(ExternalTransaction.nonce)
        .limit(1)
    ).one_or_none()
    if found is None:
        return None
    values = {"chain_id": found.chain_id, "address": found.address, "nonce": found.nonce, "message_id": message_id}
    # Another pump may link it at this very moment: then this message has its turn again at the next tick.
    linked = session.scalars(
        insert(ExternalMatch).values(**values).on_conflict_do_nothing().returning(ExternalMatch.nonce)
    ).one_or_none()
    return None if linked is None else found
