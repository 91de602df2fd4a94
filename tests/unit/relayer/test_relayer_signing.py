"""Signatures are what was asked for, and keys are in no text."""

from dataclasses import replace
from typing import Any

import pytest
import rlp
from eth_account import Account
from hypothesis import given, settings, strategies

from relayer.signing.signers import parse_keys
from relayer.signing.transactions import Keyring, SignatureMismatch, Unsigned, verify

KEY = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
ADDRESS = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
UNSIGNED = Unsigned(31337, ADDRESS, 7, "0x70997970C51812dc3A010C7d01b50e0d17dc79C8", 5, b"\x01\x02", 21_000, 30, 2)
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
KEYRING = Keyring([parse_keys(KEY)])


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


@settings(max_examples=200, deadline=None)
@given(
    chain_id=strategies.sampled_from([1, 560_048, 31_337, 2**63 - 1]),
    nonce=strategies.integers(0, 2**64 - 2),
    value_wei=strategies.integers(0, 2**256 - 1),
    data=strategies.binary(max_size=200),
    gas_limit=strategies.integers(21_000, 16_777_216),
    max_fee_wei=strategies.integers(0, 2**128),
    tip_wei=strategies.integers(0, 2**128),
)
def test_sign__any_fields__the_bytes_of_eth_account(**fields: Any) -> None:
    unsigned = Unsigned(sender=ADDRESS, to="0x70997970C51812dc3A010C7d01b50e0d17dc79C8", **fields)
    theirs = Account.sign_transaction(
        {
            "type": 2,
            "chainId": unsigned.chain_id,
            "nonce": unsigned.nonce,
            "to": unsigned.to,
            "value": unsigned.value_wei,
            "data": unsigned.data,
            "gas": unsigned.gas_limit,
            "maxFeePerGas": unsigned.max_fee_wei,
            "maxPriorityFeePerGas": unsigned.tip_wei,
        },
        "0x" + KEY,
    )
    ours = KEYRING.sign(unsigned)
    assert ours.raw == bytes(theirs.raw_transaction)
    assert ours.tx_hash == theirs.hash.to_0x_hex()


def test_verify__same_fields_signed_by_another_key__mismatch() -> None:
    (stranger,) = parse_keys("1" * 64).addresses
    signed = Keyring([parse_keys("1" * 64)]).sign(replace(UNSIGNED, sender=stranger))
    with pytest.raises(SignatureMismatch):
        verify(signed.raw, UNSIGNED)


def test_verify__the_other_s_of_the_same_signature__mismatch() -> None:
    """Nodes refuse the malleable twin (EIP-2), though it recovers to the same key."""
    *body, parity, r, s = rlp.decode(KEYRING.sign(UNSIGNED).raw[1:])
    other = (ORDER - int.from_bytes(s, "big")).to_bytes(32, "big").lstrip(b"\0")
    flipped = b"" if parity else b"\x01"
    with pytest.raises(SignatureMismatch):
        verify(b"\x02" + rlp.encode([*body, flipped, r, other]), UNSIGNED)


def test_verify__signature_with_a_leading_zero__mismatch() -> None:
    fields = rlp.decode(KEYRING.sign(UNSIGNED).raw[1:])
    for place in (9, 10, 11):
        padded = [b"\0" + field if number == place else field for number, field in enumerate(fields)]
        with pytest.raises(SignatureMismatch):
            verify(b"\x02" + rlp.encode(padded), UNSIGNED)
