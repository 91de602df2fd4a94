"""The protocol at one block, for its operator."""

from datetime import UTC, datetime

from apps.clients.shapes.protocols import Custody, LidoState, Operator, StakeLimit, Switches
from apps.ethereum.constants import RAY
from apps.ethereum.jsonrpc import Endpoint
from apps.protocols.chain import Block, Chain


def read_state(chain: Chain, number: int | None = None, wanted: str | None = None) -> LidoState:
    """Lido's state at one block, the latest where none is named: two round trips, to one node. `wanted`: the hash that the
    block must have, or `ChainUnavailable`."""
    return chain.endpoints.first(lambda endpoint: _read(chain, endpoint, chain.block_of(endpoint, number, wanted)))


def block_time(timestamp: float) -> datetime:
    """The moment of a block's timestamp, or of one that a contract stores."""
    return datetime.fromtimestamp(timestamp, UTC)


def _read(chain: Chain, endpoint: Endpoint, block: Block) -> LidoState:
    steth, queue, operator, custody = chain.steth, chain.queue, chain.operator, chain.custody
    (
        pooled, shares, operator_shares, operator_steth, allowance, limit, stopped, queue_paused, bunker, eth, custody_eth,
    ) = chain.ask(
        endpoint,
        [
            chain.call(steth, "getTotalPooledEther", [], block),
            chain.call(steth, "getTotalShares", [], block),
            chain.call(steth, "sharesOf", [operator], block),
            chain.call(steth, "balanceOf", [operator], block),
            chain.call(steth, "allowance", [operator, queue.address], block),
            chain.call(steth, "getStakeLimitFullInfo", [], block),
            chain.call(steth, "isStopped", [], block),
            chain.call(queue, "isPaused", [], block),
            chain.call(queue, "isBunkerModeActive", [], block),
            chain.balance(operator, block),
            chain.balance(custody, block),
        ],
    )  # fmt: skip
    paused, limited, current, maximum = limit[0], limit[1], limit[2], limit[3]
    return LidoState(
        chain_id=chain.chain_id,
        block_number=block.number,
        block_hash=block.hash,
        block_time=block_time(block.timestamp),
        total_pooled_ether_wei=pooled,
        total_shares=shares,
        share_rate=pooled * RAY // shares if shares else 0,
        operator=Operator(
            address=operator, shares=operator_shares, steth_wei=operator_steth, eth_wei=eth, allowance_wei=allowance
        ),
        custody=Custody(address=custody, eth_wei=custody_eth),
        stake_limit=StakeLimit(current, maximum, maximum // limit[4] if limit[4] else 0)
        if limited
        else StakeLimit(None, None),
        switches=Switches(staking_paused=paused, queue_paused=queue_paused, stopped=stopped, bunker=bunker),
    )
