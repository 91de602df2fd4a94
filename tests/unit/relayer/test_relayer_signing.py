"""Signatures are what was asked for, and keys are in no text."""

from dataclasses import replace

import pytest

from relayer.signers import parse_keys
from relayer.signing import Keyring, SignatureMismatch, Unsigned, verify

KEY = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
ADDRESS = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
UNSIGNED = Unsigned(31337, ADDRESS, 7, "0x70997970C51812dc3A010C7d01b50e0d17dc79C8", 5, b"\x01\x02", 21_000, 30, 2)


@pytest.mark.parametrize("text", [KEY, "0x" + KEY, f" {KEY} ,", KEY.upper()])
def test_parse__with_and_without_prefix__same_address(text: str) -> None:
    assert parse_keys(text).addresses == (ADDRESS,)


@pytest.mark.parametrize("text", ["", ",", KEY[:-1], f"{KEY},{KEY}", f"{KEY},nonsense{KEY[8:]}", "0" * 64])
def test_parse__wrong__refused_without_showing_a_key(text: str) -> None:
    with pytest.raises(ValueError, match=r".+") as caught:
        parse_keys(text)
    assert KEY[8:] not in str(caught.value)
    assert caught.value.__cause__ is None


def test_sign__same_fields__same_bytes_and_hash() -> None:
    keyring = Keyring([parse_keys(KEY)])
    first, second = keyring.sign(UNSIGNED), keyring.sign(UNSIGNED)
    assert (first.raw, first.tx_hash) == (second.raw, second.tx_hash)


@pytest.mark.parametrize(
    "change",
    [{"nonce": 8}, {"value_wei": 6}, {"data": b""}, {"to": ADDRESS}, {"chain_id": 1}, {"gas_limit": 21_001}],
)
def test_verify__other_fields__mismatch(change: dict[str, object]) -> None:
    signed = Keyring([parse_keys(KEY)]).sign(UNSIGNED)
    with pytest.raises(SignatureMismatch):
        verify(signed.raw, replace(UNSIGNED, **change))  # type: ignore[arg-type]


def test_repr__keyring_and_signed__addresses_and_hashes_only() -> None:
    keyring = Keyring([parse_keys(KEY)])
    signed = keyring.sign(UNSIGNED)
    assert KEY not in f"{keyring!r}{keyring}{signed!r}"
    assert signed.raw.hex() not in f"{signed!r}{signed}"
