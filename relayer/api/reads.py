"""What callers and operators may read of messages, keys and caps. Nothing here changes anything."""

import time
from collections.abc import Mapping

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from apps.clients.shapes.relayer import (
    EventPage,
    Explanation,
    Limits,
    PartsQuery,
    SendPage,
    Signer,
    Signers,
    Transaction,
    TransactionPage,
    TransactionsQuery,
)
from apps.common.database import one_of, transaction
from apps.common.long_poll import LongPoll
from apps.common.wire import cut, integer_cursor
from apps.ethereum.constants import MAX_GAS
from apps.ethereum.jsonrpc import Endpoint
from relayer.api.errors import TransactionNotFound
from relayer.api.explain import explain
from relayer.api.rendering import render_event, render_messages, render_send
from relayer.chain.snapshot import answered
from relayer.context import RelayerContext
from relayer.signing.spending_caps import caps_left
from relayer.store import models
from relayer.store.states import FINAL, OPEN, SignerState


class RelayerReads:
    def __init__(self, context: RelayerContext) -> None:
        self._context = context
        self._statuses = LongPoll[str, str](self._look)

    def message(self, message_id: str, wait_sec: float = 0.0) -> Transaction:
        """A message as it stands; with `wait_sec`, once its status changes or is final, or the time is over.

        Raises `TransactionNotFound`. No connection is held while waiting. When too many callers wait already, the answer
        comes at once.
        """
        found = self._message(message_id)
        before, give_up = found.status, time.monotonic() + wait_sec
        while found.status == before and before not in FINAL:
            if not self._statuses.wait(message_id, lambda status: status != before, give_up - time.monotonic()):
                break
            found = self._message(message_id)
        return found

    def messages(self, asked: TransactionsQuery) -> TransactionPage:
        """Messages in the order of acceptance."""
        stored = models.Message
        query = select(stored).where(stored.seq > integer_cursor(asked.after)).order_by(stored.seq)
        if asked.status is not None:
            query = query.where(stored.status.in_(asked.status))
        if asked.from_block is not None:
            query = query.where(stored.block_number >= asked.from_block)
        if asked.to_block is not None:
            query = query.where(stored.block_number <= asked.to_block)
        if asked.message_ids is not None:
            query = query.where(one_of(stored.message_id, asked.message_ids))
        with transaction(self._context.sessions) as session:
            rows, after = cut(
                session.scalars(query.limit(asked.limit + 1)).all(), asked.limit, lambda row: str(row.seq)
            )
            return TransactionPage(render_messages(session, rows), after)

    def events(self, message_id: str, asked: PartsQuery) -> EventPage:
        """The history of a message: each decision, and each reply of a node that differs from its last."""
        stored = models.MessageEvent
        query = (
            select(stored)
            .where(stored.message_id == message_id, stored.number > integer_cursor(asked.after))
            .order_by(stored.number)
            .limit(asked.limit + 1)
        )
        with transaction(self._context.sessions) as session:
            existing(session, message_id)
            rows, after = cut(session.scalars(query).all(), asked.limit, lambda row: str(row.number))
        return EventPage([render_event(row) for row in rows], after)

    def sends(self, message_id: str, asked: PartsQuery) -> SendPage:
        """Each sending of a message's bytes to a node, and what the node answered: all the evidence there is."""
        stored, attempts = models.Send, models.Attempt
        with transaction(self._context.sessions) as session:
            message = existing(session, message_id)
            query = (
                select(stored)
                .join(attempts, attempts.tx_hash == stored.tx_hash)
                .where(attempts.chain_id == message.chain_id, attempts.address == message.from_address)
                .where(attempts.nonce == message.nonce, stored.id > integer_cursor(asked.after))
                .order_by(stored.id)
                .limit(asked.limit + 1)
            )
            rows, after = cut(session.scalars(query).all(), asked.limit, lambda row: str(row.id))
        return SendPage([render_send(row) for row in rows], after)

    def explanation(self, message_id: str) -> Explanation:
        """Why a message is not mined yet, or how it ended; see `relayer.api.explain`."""
        return explain(self._context, message_id)

    def limits(self) -> Limits:
        """What will be applied to each message and to a left, so that a caller builds what passes. What moves between
        custody and operator counts for no day's value."""
        settings = self._context.settings
        with transaction(self._context.sessions) as session:
            left = caps_left(session, self._context)
        return Limits(
            max_value_per_tx_wei=settings.max_value_per_tx_wei,
            max_value_per_day_wei=settings.max_value_per_day_wei,
            value_left_today_wei=left.value_wei,
            max_gas_per_tx_wei=settings.max_gas_per_tx_wei,
            max_gas_per_day_wei=settings.max_gas_per_day_wei,
            gas_left_today_wei=left.gas_wei,
            max_gas_limit=MAX_GAS,
            max_payout_per_tx_wei=settings.max_payout_per_tx_wei,
            max_payout_per_day_wei=settings.max_payout_per_day_wei,
            payout_left_today_wei=left.payout_wei,
        )

    def signers(self) -> Signers:
        """Every key held or used, with its state in the database and on the chain; raises `ChainUnavailable`."""
        chain_id = self._context.settings.chain_id
        signers, messages = models.Signer, models.Message
        with transaction(self._context.sessions) as session:
            rows = {row.address: row for row in session.scalars(select(signers).where(signers.chain_id == chain_id))}
            counts = session.execute(
                select(messages.from_address, func.count())
                .where(messages.chain_id == chain_id, messages.status.in_(OPEN))
                .group_by(messages.from_address)
            )
            in_flight = {row.from_address: int(row[1]) for row in counts}
        addresses = list(dict.fromkeys([*self._context.settings.keyring.addresses, *rows]))

        def ask(endpoint: Endpoint) -> list[tuple[int, int]]:
            """Nonce and balance of each."""
            methods = ("eth_getTransactionCount", "eth_getBalance")
            found = answered(
                endpoint.batch([(method, [address, "latest"]) for address in addresses for method in methods])
            )
            numbers = [int(value, 16) for value in found]
            return list(zip(numbers[::2], numbers[1::2], strict=True))

        on_chain = self._context.endpoints.first(ask)
        return Signers(
            [
                _signer(address, rows.get(address), nonce, balance_wei, in_flight.get(address, 0))
                for address, (nonce, balance_wei) in zip(addresses, on_chain, strict=True)
            ]
        )

    def signer(self, address: str) -> Signer:
        """One of `signers`, by its checksummed address."""
        return next(item for item in self.signers().items if item.address == address)

    def _look(self, message_ids: frozenset[str]) -> Mapping[str, str]:
        """The status of each of these messages."""
        stored = models.Message
        query = select(stored.message_id, stored.status).where(one_of(stored.message_id, sorted(message_ids)))
        with transaction(self._context.sessions) as session:
            return {row.message_id: row.status for row in session.execute(query)}

    def _message(self, message_id: str) -> Transaction:
        with transaction(self._context.sessions) as session:
            return render_messages(session, [existing(session, message_id)])[0]


def existing(session: Session, message_id: str, *, lock: bool = False) -> models.Message:
    """A message's row; raises `TransactionNotFound`."""
    row = session.get(models.Message, message_id, with_for_update=True if lock else None)
    if row is None:
        raise TransactionNotFound
    return row


def _signer(address: str, row: models.Signer | None, nonce: int, balance_wei: int, in_flight: int) -> Signer:
    return Signer(
        address=address,
        state=SignerState(row.state) if row else SignerState.NEW,
        balance_wei=balance_wei,
        next_nonce=row.next_nonce if row else nonce,
        latest_nonce=nonce,
        in_flight=in_flight,
    )
