"""What protocols takes and answers: unsigned transactions, and reads of Lido at one block.

Its history is in `apps.clients.shapes.history`, reconciliations in `apps.clients.shapes.reconciliation`. Hashes and
calldata are ``0x`` hex, addresses are checksummed, `shares` are Lido's internal units and no wei.
"""

from dataclasses import dataclass, field

import marshmallow as ma

from apps.common import wire
from apps.common.shapes import Digits, PositiveWei, Time, Wei, Whole, given, several
from apps.common.wei import WeiField
from apps.ethereum.constants import MIN_WITHDRAWAL_WEI

BLOCK = ma.validate.Range(0, wire.MAX_BLOCK)

_ID = ma.fields.Integer(strict=True, validate=ma.validate.Range(1, 2**53))
_UP_TO_1000 = ma.validate.Length(1, 1000)


@dataclass(frozen=True)
class BuildAmount:
    """The wei of a submit or of an approval."""

    amount_wei: PositiveWei


@dataclass(frozen=True, kw_only=True)
class WithdrawalItem:
    """One caller's part of a request of withdrawals; its elements carry the same `reference`."""

    reference: str = given(ma.fields.String, required=True, validate=ma.validate.Length(1, 200))
    amount_wei: int = given(WeiField, minimum=MIN_WITHDRAWAL_WEI, required=True)


@dataclass(frozen=True)
class BuildWithdrawals:
    """Everything that one request of withdrawals asks for."""

    items: list[WithdrawalItem] = several(WithdrawalItem, 100)


@dataclass(frozen=True)
class BuildClaim:
    """The withdrawals that one claim pays out to custody."""

    withdrawal_ids: list[int] = given(ma.fields.List, cls_or_instance=_ID, required=True, validate=_UP_TO_1000)


@dataclass(frozen=True)
class Element:
    """One withdrawal NFT that a request will mint, at most 1000 stETH; `reference` is its item's."""

    reference: str
    amount_wei: Wei


@dataclass(frozen=True)
class UnsignedTransaction:
    """A transaction for the relayer. `elements` stand in on-chain order; there are none unless withdrawals are
    requested."""

    sender: str = field(metadata={"data_key": "from"})
    to: str
    data: str
    value_wei: Wei
    gas_limit: Whole
    summary: str
    elements: list[Element]


@dataclass(frozen=True)
class StateQuery:
    """The block to read at; the latest where none is named."""

    block: int | None = given(wire.WholeField, load_default=None, validate=BLOCK)


@dataclass(frozen=True)
class LidoBlock:
    """A block, from its header alone."""

    block_number: Whole
    block_hash: str
    block_time: Time


@dataclass(frozen=True)
class Operator:
    """The operator's address and what it holds. `allowance_wei`: stETH that the withdrawal queue may take from it."""

    address: str
    shares: Digits
    steth_wei: Wei
    eth_wei: Wei
    allowance_wei: Wei


@dataclass(frozen=True)
class Custody:
    """The address that deposits come to and withdrawals are paid to."""

    address: str
    eth_wei: Wei


@dataclass(frozen=True)
class StakeLimit:
    """How much Lido takes now, and at most at once; both None where the protocol sets no limit. It grows with each block by
    `growth_per_block_wei`, until it is full."""

    current_wei: Wei | None
    max_wei: Wei | None
    growth_per_block_wei: Wei | None = None


@dataclass(frozen=True)
class Switches:
    """What the protocol has paused or stopped. `bunker`: withdrawals are finalized slower, after a heavy loss."""

    staking_paused: bool
    queue_paused: bool
    stopped: bool
    bunker: bool


@dataclass(frozen=True)
class LidoState:
    """The protocol at one block. `share_rate`: ether per share, scaled by 10^27."""

    chain_id: Whole
    block_number: Whole
    block_hash: str
    block_time: Time
    total_pooled_ether_wei: Wei
    total_shares: Digits
    share_rate: Digits
    operator: Operator
    custody: Custody
    stake_limit: StakeLimit
    switches: Switches


@dataclass(frozen=True)
class ReceiptStake:
    """A stake of the operator in one transaction, and the shares it minted."""

    log_index: Whole
    amount_wei: Wei
    shares: Digits


@dataclass(frozen=True)
class ReceiptRequest:
    """A withdrawal that the operator requested in one transaction."""

    log_index: Whole
    withdrawal_id: Whole
    amount_wei: Wei
    shares: Digits


@dataclass(frozen=True)
class ReceiptClaim:
    """A withdrawal that the operator claimed in one transaction. `amount_wei`: the ETH that `receiver` was paid."""

    log_index: Whole
    withdrawal_id: Whole
    receiver: str
    amount_wei: Wei


@dataclass(frozen=True)
class LidoReceipt:
    """What Lido's logs in one transaction say about the operator."""

    tx_hash: str
    block_number: Whole
    transaction_index: Whole
    success: bool
    submitted: list[ReceiptStake]
    withdrawal_requests: list[ReceiptRequest]
    withdrawal_claims: list[ReceiptClaim]


@dataclass(frozen=True)
class WithdrawalIds:
    """The withdrawals whose status is asked for."""

    ids: list[int] = given(ma.fields.List, cls_or_instance=_ID, required=True, validate=_UP_TO_1000)


@dataclass(frozen=True)
class WithdrawalStatus:
    """One withdrawal NFT. `amount_wei`: the stETH requested; `claimable_wei`: the ETH a claim would pay now, 0 before it
    is finalized and after it was claimed."""

    withdrawal_id: Whole
    owner: str
    amount_wei: Wei
    requested_at: Time
    finalized: bool
    claimed: bool
    claimable_wei: Wei


@dataclass(frozen=True)
class WithdrawalStatuses:
    """Ordered by id."""

    items: list[WithdrawalStatus]
