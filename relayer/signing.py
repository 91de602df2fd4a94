"""Keys and signatures. A key never leaves this module in any text: not in an error, a log or a representation.

What was signed is decoded again and compared before anybody stores it, so that a wrong library or a hostile remote
signer cannot make the relayer send what nobody asked for.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from hexbytes import HexBytes
from web3 import Web3

_KEY = re.compile(r"(?:0x)?[0-9a-fA-F]{64}", re.ASCII)


class SignatureMismatch(Exception):
    """The signed bytes say something else than what was asked to be signed; nothing may be sent."""


@dataclass(frozen=True)
class Unsigned:
    """One EIP-1559 transaction, all in wei and gas units; `sender` and `to` are checksummed."""

    chain_id: int
    sender: str
    nonce: int
    to: str
    value_wei: int
    data: bytes
    gas_limit: int
    max_fee_wei: int
    tip_wei: int


@dataclass(frozen=True, repr=False)
class Signed:
    tx_hash: str
    raw: bytes

    def __repr__(self) -> str:
        return f"Signed({self.tx_hash})"


class Keyring:
    """The signers, by address, in the order of the setting."""

    def __init__(self, accounts: Sequence[LocalAccount]) -> None:
        self._accounts = {str(account.address): account for account in accounts}

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self._accounts)})"

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(self._accounts)

    def __contains__(self, address: object) -> bool:
        return address in self._accounts

    def sign(self, unsigned: Unsigned) -> Signed:
        """Sign, decode what was signed, and compare; raises `SignatureMismatch`; `KeyError` for an unknown signer."""
        signed = self._accounts[unsigned.sender].sign_transaction(_fields(unsigned))
        raw = bytes(signed.raw_transaction)
        verify(raw, unsigned)
        return Signed(tx_hash=Web3.to_hex(Web3.keccak(raw)), raw=raw)


def parse_keys(text: str) -> Keyring:
    """Read ``SIGNER_KEYS``: 32-byte hex keys, comma-separated, with or without 0x. The error says which, never what."""
    accounts: list[LocalAccount] = []
    for number, part in enumerate([part.strip() for part in text.split(",") if part.strip()], start=1):
        if not _KEY.fullmatch(part):
            raise ValueError(f"key number {number} is not 64 hex digits")
        try:
            accounts.append(Account.from_key(part if part.startswith("0x") else "0x" + part))
        except Exception:  # noqa: BLE001  # its text may hold the key
            raise ValueError(f"key number {number} is not a private key") from None
    if not accounts:
        raise ValueError("holds no key")
    if len({account.address for account in accounts}) != len(accounts):
        raise ValueError("holds a key twice")
    return Keyring(accounts)


def verify(raw: bytes, unsigned: Unsigned) -> None:
    """Raise `SignatureMismatch` unless the bytes are exactly `unsigned`, signed by its sender."""
    decoded: dict[str, Any] = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
    found = Unsigned(
        chain_id=int(decoded["chainId"]),
        sender=str(Account.recover_transaction(HexBytes(raw))),
        nonce=int(decoded["nonce"]),
        to=Web3.to_checksum_address(HexBytes(decoded["to"])),
        value_wei=int(decoded["value"]),
        data=bytes(HexBytes(decoded["data"])),
        gas_limit=int(decoded["gas"]),
        max_fee_wei=int(decoded["maxFeePerGas"]),
        tip_wei=int(decoded["maxPriorityFeePerGas"]),
    )
    if found != unsigned or decoded["accessList"]:
        raise SignatureMismatch(f"nonce {unsigned.nonce} of {unsigned.sender}")


def _fields(unsigned: Unsigned) -> dict[str, Any]:
    return {
        "type": 2,
        "chainId": unsigned.chain_id,
        "nonce": unsigned.nonce,
        "to": unsigned.to,
        "value": unsigned.value_wei,
        "data": unsigned.data,
        "gas": unsigned.gas_limit,
        "maxFeePerGas": unsigned.max_fee_wei,
        "maxPriorityFeePerGas": unsigned.tip_wei,
    }
