"""What is signed, and the proof that it was: signed bytes are decoded and compared before they are stored.

So neither a faulty library nor a hostile signer can make the relayer send what no message asks for. RLP and EIP-1559 are
written out here: eth-account, which takes fields in any form, needs about four times as long for a signature.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import rlp
from coincurve import PublicKey
from eth_utils.crypto import keccak


class SignatureMismatch(Exception):
    """The signed bytes say something else than what was asked to be signed; nothing may be sent."""


class SignerUnavailable(Exception):
    """The signer did not sign. Its message tells no secret."""


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

    def price(self) -> dict[str, str]:
        """For a message's history."""
        return {"max_fee_per_gas_wei": str(self.max_fee_wei), "max_priority_fee_per_gas_wei": str(self.tip_wei)}


@dataclass(frozen=True, repr=False)
class Signed:
    tx_hash: str
    raw: bytes

    def __repr__(self) -> str:
        return f"Signed({self.tx_hash})"


class Signer(Protocol):
    """Signs for some addresses. It only signs, it never sends; what it returns is checked by `verify`."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Checksummed, known without a call."""

    def sign(self, unsigned: Unsigned) -> bytes:
        """The raw signed transaction; raises `SignerUnavailable`."""


class Keyring:
    """All signers' addresses, in the order of the settings; one address has one signer."""

    def __init__(self, signers: Sequence[Signer]) -> None:
        self._signers: dict[str, Signer] = {}
        for signer in signers:
            for address in signer.addresses:
                if address in self._signers:
                    raise ValueError(f"the key of {address} is held twice")
                self._signers[address] = signer

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self._signers)})"

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(self._signers)

    def __contains__(self, address: object) -> bool:
        return address in self._signers

    def sign(self, unsigned: Unsigned) -> Signed:
        """Sign, decode what was signed, and compare.

        Raises `SignatureMismatch` or `SignerUnavailable`; `KeyError` for an unknown signer.
        """
        raw = self._signers[unsigned.sender].sign(unsigned)
        verify(raw, unsigned)
        return Signed(tx_hash="0x" + keccak(raw).hex(), raw=raw)


def verify(raw: bytes, unsigned: Unsigned) -> None:
    """Raise `SignatureMismatch` unless the bytes are exactly `unsigned`, signed by its sender, as nodes take it."""
    asked = f"nonce {unsigned.nonce} of {unsigned.sender}"
    try:
        parity, r, s = (int.from_bytes(item, "big") for item in rlp.decode(raw[1:])[9:])
        if raw != encode(unsigned, (parity, r, s)) or s > _HALF_OF_ORDER:
            raise SignatureMismatch(asked)
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([parity])
        key = PublicKey.from_signature_and_message(signature, signing_hash(unsigned), hasher=None)
    except SignatureMismatch:
        raise
    except Exception:  # noqa: BLE001  # what cannot be decoded is not what was asked for
        raise SignatureMismatch(f"{asked}: undecodable") from None
    if keccak(key.format(compressed=False)[1:])[-20:] != bytes.fromhex(unsigned.sender[2:]):
        raise SignatureMismatch(asked)


def signing_hash(unsigned: Unsigned) -> bytes:
    """What a key signs: keccak-256 of the type and the nine fields (EIP-1559)."""
    return keccak(_EIP_1559 + rlp.encode(_body(unsigned)))


def encode(unsigned: Unsigned, signature: tuple[int, int, int]) -> bytes:
    """The transaction with its signature (y parity, r, s), as it is sent."""
    return bytes(_EIP_1559 + rlp.encode([*_body(unsigned), *(_big_endian(part) for part in signature)]))


def _body(unsigned: Unsigned) -> list[bytes | list[bytes]]:
    """The nine fields that are signed, as EIP-1559 orders and RLP encodes them; the access list is empty."""
    prices = (unsigned.tip_wei, unsigned.max_fee_wei)
    numbers = [_big_endian(value) for value in (unsigned.chain_id, unsigned.nonce, *prices, unsigned.gas_limit)]
    return [*numbers, bytes.fromhex(unsigned.to[2:]), _big_endian(unsigned.value_wei), unsigned.data, []]


def _big_endian(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


_EIP_1559 = b"\x02"
_HALF_OF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0  # EIP-2
