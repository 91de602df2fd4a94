"""The part of Lido's public interface that is used. Its ABI is committed as JSON; eth-abi encodes and decodes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_utils.abi import (
    event_abi_to_log_topic,
    function_signature_to_4byte_selector,
    get_abi_input_types,
    get_abi_output_types,
)

ABIS = Path(__file__).parent / "abi"


@dataclass(frozen=True)
class Function:
    """A function, by its ABI types."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def selector(self) -> bytes:
        return selector(self.name, self.inputs)

    def encode(self, *arguments: Any) -> str:
        """The calldata of a call, as 0x hex."""
        return "0x" + (self.selector + encode(self.inputs, arguments)).hex()

    def decode(self, result: str) -> Any:
        """What a call returned: one value as it is, several as a tuple. Raises `ValueError` for other data."""
        values = _values(self.outputs, result)
        return values[0] if len(values) == 1 else values


@dataclass(frozen=True)
class Event:
    """An event: its topic, and the types of the fields that are in its data and not in topics."""

    name: str
    signature: str
    topic: str
    data: tuple[str, ...]

    def read(self, log: Any) -> tuple[Any, ...]:
        """The fields in a log's data, in the order of the ABI. Raises `ValueError` for other data."""
        return _values(self.data, log["data"])


@dataclass(frozen=True)
class Error:
    """A custom error that a call may revert with."""

    name: str
    inputs: tuple[str, ...]

    @property
    def selector(self) -> bytes:
        return selector(self.name, self.inputs)


@dataclass(frozen=True)
class Interface:
    """One kind of contract, by the names of what it has."""

    functions: Mapping[str, Function]
    events: Mapping[str, Event]
    errors: Mapping[str, Error]


@dataclass(frozen=True)
class Contract:
    """A contract on the chain."""

    address: str
    interface: Interface

    def encode(self, function: str, *arguments: Any) -> str:
        """The calldata of a call, as 0x hex."""
        return self.interface.functions[function].encode(*arguments)


def selector(name: str, types: Sequence[str]) -> bytes:
    """The four bytes that name a function or a custom error."""
    return function_signature_to_4byte_selector(f"{name}({','.join(types)})")


def load_interface(name: str) -> Interface:
    """Read a committed ABI, such as ``Lido``."""
    entries: list[Any] = json.loads((ABIS / f"{name}.json").read_text())
    return Interface(
        functions={
            entry["name"]: Function(
                entry["name"], tuple(get_abi_input_types(entry)), tuple(get_abi_output_types(entry))
            )
            for entry in entries
            if entry["type"] == "function"
        },
        events={entry["name"]: _event(entry) for entry in entries if entry["type"] == "event"},
        errors={
            entry["name"]: Error(entry["name"], tuple(part["type"] for part in entry["inputs"]))
            for entry in entries
            if entry["type"] == "error"
        },
    )


def _event(entry: Any) -> Event:
    return Event(
        name=entry["name"],
        signature=f"{entry['name']}({','.join(part['type'] for part in entry['inputs'])})",
        topic="0x" + event_abi_to_log_topic(entry).hex(),
        data=tuple(part["type"] for part in entry["inputs"] if not part["indexed"]),
    )


def _values(types: Sequence[str], data: str) -> tuple[Any, ...]:
    try:
        return decode(types, bytes.fromhex(data[2:]))
    except DecodingError as error:
        raise ValueError(f"not the data of ({', '.join(types)})") from error


LIDO = load_interface("Lido")
QUEUE = load_interface("WithdrawalQueue")
LOCATOR = load_interface("LidoLocator")
