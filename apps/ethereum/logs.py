"""Reading what JSON-RPC writes as hex: numbers, and addresses in the topics of logs."""

from apps.ethereum.addresses import checksummed


def integer(value: str) -> int:
    """An integer of JSON-RPC."""
    return int(value, 16)


def address_of(topic: str) -> str:
    """The address in an indexed topic, checksummed."""
    return checksummed("0x" + topic[-40:])


def topic_of(address: str) -> str:
    """An address as an indexed topic."""
    return "0x" + address[2:].lower().rjust(64, "0")
