"""Withdrawal NFTs and receipts, as the chain has them."""

from collections.abc import Callable, Sequence
from typing import Any

from web3 import Web3

from apps.common.errors import NotConfigured
from apps.ethereum.endpoints import Absent
from apps.ethereum.jsonrpc import Endpoint
from apps.protocols import errors
from apps.protocols.chain import ASK_BEHIND, Block, Call, Chain, well_formed
from apps.protocols.events import TOPICS, address_of, integer, words

STATUS_TYPES = "(uint256,uint256,address,uint256,bool,bool)[]"


def read_statuses(chain: Chain, ids: Sequence[int], block: Block) -> list[dict[str, Any]]:
    """Status, hint and claimable wei of up to 1,000 ids: five calls in three round trips however many ids.

    Hints are looked up for finalized ids only, sorted: an unfinalized one among them makes the contract revert. Raises
    `WithdrawalUnknown`.
    """
    asked = sorted(set(ids))
    if not asked:
        return []
    last, checkpoints, found = chain.batch(
        [
            chain.call(chain.queue, "getLastRequestId", [], block, "uint256"),
            chain.call(chain.queue, "getLastCheckpointIndex", [], block, "uint256"),
            chain.call(chain.queue, "getWithdrawalStatus", [asked], block, STATUS_TYPES, optional=True),
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
        listed = chain.batch(
            [chain.call(chain.queue, "findCheckpointHints", [final, 1, checkpoints], block, "uint256[]")]
        )[0]
        hints = dict(zip(final, listed, strict=True))
        values = chain.batch([chain.call(chain.queue, "getClaimableEther", [final, list(listed)], block, "uint256[]")])[
            0
        ]
        claimable = dict(zip(final, values, strict=True))
    return [
        {
            "withdrawal_id": number,
            "amount": int(status[0]),
            "owner": Web3.to_checksum_address(status[2]),
            "timestamp": int(status[3]),
            "finalized": bool(status[4]),
            "claimed": bool(status[5]),
            "hint": int(hints.get(number, 0)),
            "claimable": int(claimable.get(number, 0)),
        }
        for number, status in zip(asked, found, strict=True)
    ]


def read_receipt(chain: Chain, tx_hash: str, known_hash: Callable[[int], str | None]) -> dict[str, Any]:
    """The `receipt` shape: what Lido's logs in one transaction say about the operator. `NotFound` when no node has it.

    One node's word is no proof of absence, nor is a receipt of a block that was read with another hash: each node is
    asked, and more than once, since two may answer behind one address.
    """

    def look(endpoint: Endpoint) -> Any:
        for _ in range(ASK_BEHIND):
            found = chain.ask(endpoint, [Call("eth_getTransactionReceipt", [tx_hash])])[0]
            if found is not None and known_hash(integer(found["blockNumber"])) in {None, found["blockHash"]}:
                return found
        raise Absent("The chain has no receipt of this transaction.")

    receipt = chain.endpoints.first(lambda endpoint: well_formed(look, endpoint))
    logs = receipt["logs"]
    steth, queue = chain.steth.address.lower(), chain.queue.address.lower()
    return {
        "tx_hash": receipt["transactionHash"],
        "block_number": integer(receipt["blockNumber"]),
        "transaction_index": integer(receipt["transactionIndex"]),
        "success": integer(receipt["status"]) == 1,
        "submitted": _submitted(logs, steth, chain.operator),
        "withdrawal_requests": [
            {
                "log_index": integer(log["logIndex"]),
                "withdrawal_id": integer(log["topics"][1]),
                "amount_wei": str(words(log)[0]),
                "shares": str(words(log)[1]),
            }
            for log in _of(logs, queue, "WithdrawalRequested")
            if address_of(log["topics"][2]) == address_of(log["topics"][3]) == chain.operator
        ],
        "withdrawal_claims": [
            {
                "log_index": integer(log["logIndex"]),
                "withdrawal_id": integer(log["topics"][1]),
                "receiver": address_of(log["topics"][3]),
                "amount_wei": str(words(log)[0]),
            }
            for log in _of(logs, queue, "WithdrawalClaimed")
            if address_of(log["topics"][2]) == chain.operator
        ],
    }


def _of(logs: Sequence[Any], address: str, event: str) -> list[Any]:
    return [log for log in logs if log["address"].lower() == address and log["topics"][0] == TOPICS[event]]


def _submitted(logs: Sequence[Any], steth: str, operator: str) -> list[dict[str, Any]]:
    """The operator's stakes with the shares each minted: in one transaction the first mint is the first stake's.

    A mint without a stake is another's gift (external shares minted to the operator), and a stake's mint comes first.
    """
    stakes = [log for log in _of(logs, steth, "Submitted") if address_of(log["topics"][1]) == operator]
    minted = [
        log
        for log in _of(logs, steth, "TransferShares")
        if integer(log["topics"][1]) == 0 and address_of(log["topics"][2]) == operator
    ]
    return [
        {
            "log_index": integer(stake["logIndex"]),
            "amount_wei": str(words(stake)[0]),
            "shares": str(words(mint)[0]),
        }
        for stake, mint in zip(stakes, minted, strict=False)
    ]
