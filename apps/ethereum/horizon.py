"""The money horizon: the highest block that counts as irreversible, below which the books may act.

It is the chain's ``finalized`` block on known public chains, and CONFIRMATIONS deep elsewhere; MONEY_HORIZON overrides.
"""

# Chains with a `finalized` tag worth waiting for; elsewhere depth decides (a development node finalizes nothing real).
PUBLIC_CHAINS = frozenset({1, 560048, 17000, 11155111})


def needs_finalized(chain_id: int, mode: str | None) -> bool:
    """Whether the node's `finalized` tag is the money horizon. `mode` is ``finalized``, ``depth`` or None (finalized on
    public chains, depth elsewhere)."""
    return (mode or ("finalized" if chain_id in PUBLIC_CHAINS else "depth")) == "finalized"


def depth_horizon(confirmations: int, head: int) -> int:
    """The horizon by depth. Depth N means that N blocks stand on top of or at the block: head - N + 1. Never below 0."""
    return max(0, head - confirmations + 1)


def horizon_tag(chain_id: int, confirmations: int, mode: str | None, head: int) -> str:
    """The block parameter of the horizon for JSON-RPC, where the chain's newest block is `head`."""
    return "finalized" if needs_finalized(chain_id, mode) else hex(depth_horizon(confirmations, head))
