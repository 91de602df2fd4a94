"""Addresses in the one form that is stored, compared and shown: checksummed (EIP-55)."""

from eth_utils.address import to_checksum_address

from apps.common.settings import require_address


def checksummed(address: str) -> str:
    """The address with its checksum; ``ValueError`` for what is none."""
    return str(to_checksum_address(address))


def checksum_setting(name: str, value: str | None) -> str:
    """A setting's address, checksummed; `NotConfigured` names the setting when it is a placeholder."""
    return checksummed(require_address(name, value))
