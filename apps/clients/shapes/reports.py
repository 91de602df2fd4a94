"""What the pool tells of a user's money over time, and of a wei's way to the chain and back. Amounts are wei, and the same in
ETH with all 18 digits where people read them."""

from dataclasses import dataclass, field
from typing import Annotated

import marshmallow as ma

from apps.clients.shapes.common import IdPageQuery, SpanQuery, one_of
from apps.clients.shapes.fields import text_of
from apps.clients.shapes.ledger import Buckets
from apps.clients.shapes.pool import Request
from apps.clients.shapes.pool_states import BatchKind
from apps.clients.shapes.relayer import TransactionStatus
from apps.common.shapes import SignedWei, Time, Wei, Whole, given

STATEMENT_FORMATS = {"json": "application/json", "csv": "text/csv; charset=utf-8"}


@dataclass(frozen=True)
class StatementMovement:
    """A movement with the buckets after it; the request it belongs to, and the transaction and block that it stands for on
    chain, where there are such."""

    id: Whole
    at: Time
    kind: str
    amount_wei: Wei
    amount_eth: str
    source: str
    target: str
    after: Buckets
    message_id: str
    request_id: str | None
    tx_hash: str | None
    block_number: Whole | None


@dataclass(frozen=True)
class StatementDay:
    """What a day of UTC brought in the reward index, net of the fee; it reaches `staked` when it is claimed."""

    date: str
    earned_wei: SignedWei
    earned_eth: str
    fee_wei: Wei
    fee_eth: str


@dataclass(frozen=True)
class StatementEnd:
    """What a user has at one end of a statement: buckets, and what the index had earned for them ever, claimed or not."""

    buckets: Buckets
    earned_wei: SignedWei
    earned_eth: str


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A user's account over a span. ``opening.buckets`` and the movements give ``closing.buckets``; the days add up to
    ``closing.earned_wei - opening.earned_wei``."""

    pool_id: str
    user_id: str
    start: Time = field(metadata={"data_key": "from"})
    end: Time = field(metadata={"data_key": "to"})
    opening: StatementEnd
    movements: list[StatementMovement]
    days: list[StatementDay]
    closing: StatementEnd
    fee_wei: Wei
    fee_eth: str
    apr: str | None


@dataclass(frozen=True, kw_only=True)
class StatementQuery(SpanQuery):
    """Of which span, and in which form."""

    format: str = given(ma.fields.String, load_default="json", validate=one_of(tuple(STATEMENT_FORMATS)))


@dataclass(frozen=True)
class LineageMovement:
    """A movement that the request made in the ledger."""

    id: Whole
    message_id: str
    kind: str
    amount_wei: Wei
    at: Time


@dataclass(frozen=True)
class LineageLog:
    """A log of Lido's in which wei of the request are: `amount_wei` is the log's, `of_request_wei` what of it is the
    request's."""

    event: str
    log_index: Whole
    withdrawal_id: Whole | None
    amount_wei: Wei
    of_request_wei: Wei


@dataclass(frozen=True)
class LineageTransaction:
    """A transaction that the relayer was given, or of a deposit the one that brought it (it has no `message_id`), and where the
    chain has it; null while it has not."""

    message_id: str | None
    purpose: str
    status: Annotated[TransactionStatus, text_of(TransactionStatus)]
    tx_hash: str | None
    block_number: Whole | None
    success: bool | None
    logs: list[LineageLog]


@dataclass(frozen=True)
class LineageBatch:
    """A batch that the request is part of, or that claims its withdrawals, and how much of it is the request's."""

    id: str
    kind: Annotated[BatchKind, text_of(BatchKind)]
    request_count: Whole
    amount_wei: Wei
    of_request_wei: Wei
    transactions: list[LineageTransaction]


@dataclass(frozen=True)
class Lineage:
    """A request's wei on their way: movements in the ledger, batches, messages, transactions, blocks, logs. `transactions` are
    those that are the request's alone: a payout's transfer, the arrival that a deposit books."""

    request: Request
    movements: list[LineageMovement]
    batches: list[LineageBatch]
    transactions: list[LineageTransaction]


@dataclass(frozen=True)
class RequestShare:
    """What of a transaction is one request's."""

    request_id: str
    user_id: str
    amount_wei: Wei


@dataclass(frozen=True, kw_only=True)
class TransactionRequests:
    """Whose wei a transaction moved. `value_wei` is what it moved on chain for its purpose, by Lido's logs or as a transfer of
    ETH, `requests_wei` what all its requests add up to, and the two are equal; both are null while the chain does not have it,
    and of an approval. `batch_id` is null of a payout and a deposit. `next` is the cursor of the next page of items."""

    tx_hash: str
    purpose: str
    batch_id: str | None
    block_number: Whole | None
    value_wei: Wei | None
    requests_wei: Wei | None
    items: list[RequestShare]
    next: str | None


@dataclass(frozen=True, kw_only=True)
class TransactionRequestsQuery(IdPageQuery):
    """Which page of the requests."""
