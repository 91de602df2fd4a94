"""What a revert says: Solidity's ``Error(string)`` and ``Panic(uint256)``, and the withdrawal queue's custom errors."""

from collections.abc import Mapping
from dataclasses import dataclass

from eth_abi.abi import decode
from eth_utils.abi import function_signature_to_4byte_selector

from relayer.chain.replies import readable

ERROR = bytes.fromhex("08c379a0")
PANIC = bytes.fromhex("4e487b71")

_PANICS = {
    0x01: "assertion failed",
    0x11: "arithmetic overflow",
    0x12: "division by zero",
    0x21: "invalid enum value",
    0x31: "pop of an empty array",
    0x32: "index out of bounds",
    0x41: "out of memory",
    0x51: "call of an unset function",
}
_CUSTOM = (
    "RequestAmountTooSmall(uint256)",
    "RequestAmountTooLarge(uint256)",
    "ResumedExpected()",
    "RequestNotFoundOrNotFinalized(uint256)",
    "RequestAlreadyClaimed(uint256)",
    "NotOwner(address,address)",
    "InvalidRequestId(uint256)",
    "InvalidRequestIdRange(uint256,uint256)",
    "RequestIdsNotSorted()",
    "InvalidHint(uint256)",
    "ArraysLengthMismatch(uint256,uint256)",
    "ZeroRecipient()",
    "CantSendValueRecipientMayHaveReverted()",
    "NotEnoughEther()",
)
_SELECTORS = {function_signature_to_4byte_selector(signature): signature for signature in _CUSTOM}


@dataclass(frozen=True)
class Revert:
    """`name` is ``Error``, ``Panic``, ``OutOfGas``, ``Unknown`` or a custom error's; `detail` is for people."""

    name: str
    detail: str


# Lido's refusals that pass by themselves, and the code of each. The queue's `ResumedExpected` means that it is paused.
PASSING: Mapping[Revert, str] = {
    Revert("Error", "STAKE_LIMIT"): "stake_limit_exceeded",
    Revert("Error", "STAKING_PAUSED"): "staking_paused",
    Revert("Error", "CONTRACT_IS_STOPPED"): "protocol_stopped",
    Revert("ResumedExpected", "ResumedExpected()"): "queue_paused",
}
_PASSING_DETAILS = {revert.detail: code for revert, code in PASSING.items()}
# The code of a message that was rejected because its simulation reverted; its detail is the revert's.
SIMULATION_REVERTED = "simulation_reverted"

OUT_OF_GAS = Revert("OutOfGas", "The gas limit was used up.")
UNKNOWN = Revert("Unknown", "The reason could not be read.")


def passing(name: str, detail: str) -> str | None:
    """The code of a decoded revert that passes by itself, or None."""
    return PASSING.get(Revert(name, detail))


def passing_in_simulation(code: str, detail: str) -> str | None:
    """The same for the reason of a rejected message, which keeps a revert's detail and not its name."""
    return _PASSING_DETAILS.get(detail) if code == SIMULATION_REVERTED else None


def decode_revert(data: bytes) -> Revert:
    """Decode revert data; whatever it is, something is returned."""
    if not data:
        return Revert("Unknown", "It reverted without a reason.")
    try:
        return _decode(data[:4], data[4:])
    except Exception:  # noqa: BLE001  # malformed data of an unknown contract
        return _undecoded(data)


def _decode(selector: bytes, arguments: bytes) -> Revert:
    if selector == ERROR:
        (text,) = decode(["string"], arguments)
        return Revert("Error", readable(str(text), 500))
    if selector == PANIC:
        (number,) = decode(["uint256"], arguments)
        return Revert("Panic", f"0x{number:02x}: {_PANICS.get(number, 'unknown')}")
    signature = _SELECTORS.get(selector)
    if signature is None:
        return _undecoded(selector + arguments)
    name, inside = signature[:-1].split("(")
    values = decode([kind for kind in inside.split(",") if kind], arguments)
    return Revert(name, f"{name}({', '.join(str(value) for value in values)})")


def _undecoded(data: bytes) -> Revert:
    return Revert("Unknown", f"Undecoded revert data 0x{data[:68].hex()}")
