"""What a revert says: Solidity's ``Error(string)`` and ``Panic(uint256)``, and the withdrawal queue's custom errors."""

from dataclasses import dataclass

from eth_abi.abi import decode

from apps.ethereum.contracts import QUEUE
from apps.ethereum.sanitize import readable

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
_CUSTOM = {error.selector: error for error in QUEUE.errors.values()}


@dataclass(frozen=True)
class Revert:
    """`name` is ``Error``, ``Panic``, ``OutOfGas``, ``Unknown`` or a custom error's; `detail` is for people."""

    name: str
    detail: str


OUT_OF_GAS = Revert("OutOfGas", "The gas limit was used up.")
UNKNOWN = Revert("Unknown", "The reason could not be read.")


def decode_revert(data: bytes) -> Revert:
    """Decode revert data; whatever it is, something is returned."""
    if not data:
        return Revert("Unknown", "It reverted without a reason.")
    try:
        return _decode(data[:4], data[4:])
    except Exception:  # noqa: BLE001  # any contract may have made this data
        return _undecoded(data)


def _decode(selector: bytes, arguments: bytes) -> Revert:
    if selector == ERROR:
        (text,) = decode(["string"], arguments)
        return Revert("Error", readable(str(text), 500))
    if selector == PANIC:
        (number,) = decode(["uint256"], arguments)
        return Revert("Panic", f"0x{number:02x}: {_PANICS.get(number, 'unknown')}")
    custom = _CUSTOM.get(selector)
    if custom is None:
        return _undecoded(selector + arguments)
    values = decode(custom.inputs, arguments)
    return Revert(custom.name, f"{custom.name}({', '.join(str(value) for value in values)})")


def _undecoded(data: bytes) -> Revert:
    return Revert("Unknown", f"Undecoded revert data 0x{data[:68].hex()}")
