"""Raw logs of Lido: topics, and how their words are read."""

from typing import Any

from web3 import Web3

_SIGNATURES = {
    "Submitted": "Submitted(address,uint256,address)",
    "Transfer": "Transfer(address,address,uint256)",
    "TransferShares": "TransferShares(address,address,uint256)",
    "TokenRebased": "TokenRebased(uint256,uint256,uint256,uint256,uint256,uint256,uint256)",
    "WithdrawalRequested": "WithdrawalRequested(uint256,address,address,uint256,uint256)",
    "WithdrawalClaimed": "WithdrawalClaimed(uint256,address,address,uint256)",
}
TOPICS = {name: Web3.to_hex(Web3.keccak(text=signature)) for name, signature in _SIGNATURES.items()}


def integer(value: Any) -> int:
    """An integer of JSON-RPC: hex text."""
    return int(value, 16)


def words(log: Any) -> list[int]:
    """The data of a log whose fields are all uint256 (or an address, as its number)."""
    data = log["data"][2:]
    return [int(data[start : start + 64], 16) for start in range(0, len(data), 64)]


def address_of(topic: str) -> str:
    """The address in an indexed topic."""
    return str(Web3.to_checksum_address("0x" + topic[-40:]))


def topic_of(address: str) -> str:
    """An address as an indexed topic."""
    return "0x" + address[2:].lower().rjust(64, "0")
