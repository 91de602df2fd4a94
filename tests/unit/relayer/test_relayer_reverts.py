"""Revert data to words."""

import pytest
from eth_abi.abi import encode
from eth_utils.abi import function_signature_to_4byte_selector as selector

from apps.ethereum.reverts import ERROR, PANIC, Revert, decode_revert
from relayer.chain.reverts import PASSING, passing, passing_in_simulation


@pytest.mark.parametrize(
    ("data", "revert"),
    [
        (ERROR + encode(["string"], ["STAKE_LIMIT"]), Revert("Error", "STAKE_LIMIT")),
        (
            ERROR + encode(["string"], ["no\0\n"]),
            Revert("Error", "no\N{REPLACEMENT CHARACTER}" + "\N{REPLACEMENT CHARACTER}"),
        ),
        (PANIC + encode(["uint256"], [0x11]), Revert("Panic", "0x11: arithmetic overflow")),
        (
            bytes.fromhex("b89b87c8") + encode(["uint256"], [99]),
            Revert("RequestAmountTooSmall", "RequestAmountTooSmall(99)"),
        ),
        (bytes.fromhex("14378398"), Revert("ResumedExpected", "ResumedExpected()")),
        (b"", Revert("Unknown", "It reverted without a reason.")),
        (b"\x01\x02\x03\x04", Revert("Unknown", "Undecoded revert data 0x01020304")),
        (ERROR + b"\xff", Revert("Unknown", "Undecoded revert data 0x08c379a0ff")),
    ],
)
def test_decode__data__name_and_detail(data: bytes, revert: Revert) -> None:
    assert decode_revert(data) == revert


def test_decode__queue_errors__selectors_as_measured() -> None:
    for signature, known in {
        "RequestAmountTooLarge(uint256)": "8ebfb78d",
        "RequestNotFoundOrNotFinalized(uint256)": "4ae50228",
        "InvalidHint(uint256)": "cee778e2",
        "NotOwner(address,address)": "23295f0e",
    }.items():
        assert selector(signature).hex() == known


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (ERROR + encode(["string"], ["STAKE_LIMIT"]), "stake_limit_exceeded"),
        (ERROR + encode(["string"], ["STAKING_PAUSED"]), "staking_paused"),
        (ERROR + encode(["string"], ["CONTRACT_IS_STOPPED"]), "protocol_stopped"),
        (selector("ResumedExpected()"), "queue_paused"),
        (ERROR + encode(["string"], ["ZERO_DEPOSIT"]), None),
        (ERROR + encode(["string"], ["OVER_STAKE_LIMIT"]), None),
        (ERROR + encode(["string"], ["STAKE_LIMIT "]), None),
        (ERROR + encode(["string"], ["stake_limit"]), None),
        (ERROR + encode(["string"], ["ResumedExpected()"]), None),
        (b"", None),
    ],
)
def test_passing__revert__decided_by_name_and_detail_exactly(data: bytes, code: str | None) -> None:
    revert = decode_revert(data)
    assert passing(revert.name, revert.detail) == code


@pytest.mark.parametrize("revert", PASSING)
def test_passing__rejected_at_simulation__by_the_same_table(revert: Revert) -> None:
    assert passing_in_simulation("simulation_reverted", revert.detail) == PASSING[revert]
    assert passing_in_simulation("simulation_reverted", f"{revert.detail} (asked again at the next block)") is None
    assert passing_in_simulation("value_over_cap", revert.detail) is None
