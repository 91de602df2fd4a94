"""The only shared import of web3 besides ABIs: addresses, and blocks the books may act on."""

from web3 import Web3

from apps.common.errors import NotConfigured
from apps.common.settings import require_address
from apps.ethereum.endpoints import ChainUnavailable

# Chains with a `finalized` tag worth waiting for; elsewhere depth decides (a development node finalizes nothing real).
PUBLIC_CHAINS = frozenset({1, 560048, 17000, 11155111})


def checksum_setting(name: str, value: str | None) -> str:
    """A setting's address, checksummed; `NotConfigured` names the setting when it is a placeholder."""
    return Web3.to_checksum_address(require_address(name, value))


def needs_finalized(chain_id: int, mode: str | None) -> bool:
    """Whether the node's `finalized` tag is the money horizon. `mode` is ``finalized``, ``depth`` or None (finalized on
    public chains, depth elsewhere)."""
    return (mode or ("finalized" if chain_id in PUBLIC_CHAINS else "depth")) == "finalized"


def horizon_tag(chain_id: int, confirmations: int, mode: str | None, head: int) -> str:
    """The block parameter of the highest block that the books may act on. Depth N means that N blocks stand on top of or
    at the block: head - N + 1. Never below 0."""
    return "finalized" if needs_finalized(chain_id, mode) else hex(max(0, head - confirmations + 1))


__all__ = ["ChainUnavailable", "NotConfigured", "checksum_setting", "horizon_tag", "needs_finalized"]
