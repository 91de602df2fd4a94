"""Where keys live: in this process's memory, in encrypted keystore files, or behind a Web3Signer.

A key never leaves this module in any text: not in an error, a log or a representation.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import requests
from coincurve import PrivateKey
from eth_account import Account
from eth_account.signers.local import LocalAccount

from relayer.signing.transactions import SignerUnavailable, Unsigned, encode, signing_hash

_KEY = re.compile(r"(?:0x)?[0-9a-fA-F]{64}", re.ASCII)
_RAW = re.compile(r"0x(?:[0-9a-fA-F]{2})+", re.ASCII)
WEB3SIGNER_TIMEOUT_SEC = 5.0


class LocalKeys:
    """Keys held in memory, in the order given. Signed by libsecp256k1 itself: eth-account takes fields in any form, and
    four times as long."""

    def __init__(self, accounts: Sequence[LocalAccount]) -> None:
        self._keys = {str(account.address): PrivateKey(bytes(account.key)) for account in accounts}

    def __repr__(self) -> str:
        return f"LocalKeys({', '.join(self._keys)})"

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(self._keys)

    def sign(self, unsigned: Unsigned) -> bytes:
        # r, s and y parity; RFC 6979, so the same fields give the same bytes.
        signature = self._keys[unsigned.sender].sign_recoverable(signing_hash(unsigned), hasher=None)
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
        return encode(unsigned, (signature[64], r, s))


class Web3Signer:
    """A Web3Signer over HTTP: its ``eth_signTransaction`` only, as its own sending picks nonces of its own.

    Its chain id is set there; that it signs for another chain is caught when the bytes are compared.
    """

    def __init__(self, url: str, addresses: Sequence[str], timeout_sec: float = WEB3SIGNER_TIMEOUT_SEC) -> None:
        self._url = url
        self._addresses = tuple(addresses)
        self._timeout_sec = timeout_sec

    def __repr__(self) -> str:
        return f"Web3Signer({', '.join(self._addresses)})"

    @property
    def addresses(self) -> tuple[str, ...]:
        return self._addresses

    def sign(self, unsigned: Unsigned) -> bytes:
        call = {
            "from": unsigned.sender,
            "to": unsigned.to,
            "gas": hex(unsigned.gas_limit),
            "nonce": hex(unsigned.nonce),
            "value": hex(unsigned.value_wei),
            "data": "0x" + unsigned.data.hex(),
            "maxFeePerGas": hex(unsigned.max_fee_wei),
            "maxPriorityFeePerGas": hex(unsigned.tip_wei),
        }
        body = {"jsonrpc": "2.0", "id": 1, "method": "eth_signTransaction", "params": [call]}
        try:
            answer = requests.post(self._url, json=body, timeout=self._timeout_sec)
            result = answer.json().get("result")
        except Exception as error:  # noqa: BLE001  # the texts of transport errors hold URLs
            raise SignerUnavailable(type(error).__name__) from None
        if not isinstance(result, str) or not _RAW.fullmatch(result):
            raise SignerUnavailable(f"HTTP {answer.status_code} without a signed transaction")
        return bytes.fromhex(result[2:])


def parse_keys(text: str) -> LocalKeys:
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
    return LocalKeys(accounts)


def read_keystores(paths: Sequence[str], password: str) -> LocalKeys:
    """Decrypt keystore files (version 3), all under one password. The error says which file, never why in detail."""
    accounts: list[LocalAccount] = []
    for number, path in enumerate(paths, start=1):
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            accounts.append(Account.from_key(Account.decrypt(content, password)))
        except Exception as error:  # noqa: BLE001  # its text may hold what it tried to read
            raise ValueError(f"file number {number} cannot be decrypted ({type(error).__name__})") from None
    return LocalKeys(accounts)
