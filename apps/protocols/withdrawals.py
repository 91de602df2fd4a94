"""Withdrawal NFTs and receipts, as the chain has them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from apps.clients.shapes.protocols import LidoReceipt, ReceiptClaim, ReceiptRequest, ReceiptStake, WithdrawalStatus
from apps.common.errors import NotConfigured
from apps.ethereum.addresses import checksummed
from apps.ethereum.contracts import LIDO, QUEUE, Event
from apps.ethereum.endpoints import Absent
from apps.ethereum.jsonrpc import Endpoint
from apps.ethereum.logs import address_of, integer
from apps.protocols import errors
from apps.protocols.calls import Call, well_formed
from apps.protocols.chain import ASK_BEHIND, Block, Chain
from apps.protocols.state import block_time

_SUBMITTED, _MINTED = LIDO.events["Submitted"], LIDO.events["TransferShares"]
_REQUESTED, _CLAIMED = QUEUE.events["WithdrawalRequested"], QUEUE.events["WithdrawalClaimed"]


@dataclass(frozen=True)
class Withdrawal:
    """A withdrawal's status, and the hint that a claim of it needs; 0 before it is finalized."""

    status: WithdrawalStatus
    hint: int


def read_statuses(chain: Chain, ids: Sequence[int], block: Block) -> list[Withdrawal]:
    """Up to 1,000 withdrawals ordered by id: five calls in three round trips however many ids.

    Hints are looked up for finalized ids only, sorted: an unfinalized one among them makes the contract revert. Raises
    `WithdrawalUnknown`.
    """
    asked = sorted(set(ids))
    if not asked:
        return []
    last, checkpoints, found = chain.batch(
        [
            chain.call(chain.queue, "getLastRequestId", [], block),
            chain.call(chain.queue, "getLastCheckpointIndex", [], block),
            chain.call(chain.queue, "getWithdrawalStatus", [asked], block, optional=True),
        ]
    )
    unknown = [number for number in asked if number <= 0 or number > last]
    if unknown:
        raise errors.WithdrawalUnknown(errors={"withdrawal_ids": [str(number) for number in unknown]})
    if found is None:
        raise NotConfigured(f"{chain.queue.address} does not tell the status of its own withdrawals.")
    final = [number for number, status in zip(asked, found, strict=True) if status[4]]
    hints: dict[int, int] = {}
    claimable: dict[int, int] = {}
    if final:
        (listed,) = chain.batch([chain.call(chain.queue, "findCheckpointHints", [final, 1, checkpoints], block)])
        hints = dict(zip(final, listed, strict=True))
        (values,) = chain.batch([chain.call(chain.queue, "getClaimableEther", [final, list(listed)], block)])
        claimable = dict(zip(final, values, strict=True))
    return [
        Withdrawal(
            status=WithdrawalStatus(
                withdrawal_id=number,
                owner=checksummed(owner),
                amount_wei=steth,
                requested_at=block_time(timestamp),
                finalized=finalized,
                claimed=claimed,
                claimable_wei=claimable.get(number, 0),
            ),
            hint=hints.get(number, 0),
        )
        for number, (steth, _shares, owner, timestamp, finalized, claimed) in zip(asked, found, strict=True)
    ]


def read_receipt(chain: Chain, tx_hash: str, known_hash: Callable[[int], str | None]) -> LidoReceipt:
    """What Lido's logs in one transaction say about the operator. `NotFound` when no node has it.

    One node's word is no proof of absence, nor is a receipt of a block that was read with another hash: each node is
    asked, and more than once, since two may answer behind one address.
    """

    def look(endpoint: Endpoint) -> LidoReceipt:
        for _ in range(ASK_BEHIND):
            found = chain.ask(endpoint, [Call("eth_getTransactionReceipt", [tx_hash])])[0]
            if found is not None and known_hash(integer(found["blockNumber"])) in {None, found["blockHash"]}:
                return _shown(chain, found)
        raise Absent("The chain has no receipt of this transaction.")

    return chain.endpoints.first(lambda endpoint: well_formed(look, endpoint))


def _shown(chain: Chain, receipt: Any) -> LidoReceipt:
    logs = receipt["logs"]
    steth, queue = chain.steth.address.lower(), chain.queue.address.lower()
    return LidoReceipt(
        tx_hash=receipt["transactionHash"],
        block_number=integer(receipt["blockNumber"]),
        transaction_index=integer(receipt["transactionIndex"]),
        success=integer(receipt["status"]) == 1,
        submitted=_submitted(logs, steth, chain.operator),
        withdrawal_requests=[
            _requested(log)
            for log in _of(logs, queue, _REQUESTED)
            if address_of(log["topics"][2]) == address_of(log["topics"][3]) == chain.operator
        ],
        withdrawal_claims=[
            ReceiptClaim(
                log_index=integer(log["logIndex"]),
                withdrawal_id=integer(log["topics"][1]),
                receiver=address_of(log["topics"][3]),
                amount_wei=_CLAIMED.read(log)[0],
            )
            for log in _of(logs, queue, _CLAIMED)
            if address_of(log["topics"][2]) == chain.operator
        ],
    )


def _requested(log: Any) -> ReceiptRequest:
    amount_wei, shares = _REQUESTED.read(log)
    number = integer(log["topics"][1])
    return ReceiptRequest(
        log_index=integer(log["logIndex"]), withdrawal_id=number, amount_wei=amount_wei, shares=shares
    )


def _of(logs: Sequence[Any], address: str, event: Event) -> list[Any]:
    return [log for log in logs if log["address"].lower() == address and log["topics"][0] == event.topic]


def _submitted(logs: Sequence[Any], steth: str, operator: str) -> list[ReceiptStake]:
    """The operator's stakes with the shares each minted: in one transaction the first mint is the first stake's.

    A mint without a stake is another sender's gift (external shares minted to the operator), and a stake's mint comes
    first.
    """
    stakes = [log for log in _of(logs, steth, _SUBMITTED) if address_of(log["topics"][1]) == operator]
    minted = [
        log
        for log in _of(logs, steth, _MINTED)
        if integer(log["topics"][1]) == 0 and address_of(log["topics"][2]) == operator
    ]
    return [
        ReceiptStake(
            log_index=integer(stake["logIndex"]), amount_wei=_SUBMITTED.read(stake)[0], shares=_MINTED.read(mint)[0]
        )
        for stake, mint in zip(stakes, minted, strict=False)
    ]
