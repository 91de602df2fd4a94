"""Whether the settings name one protocol on the chain that is meant. Checked at start, and then until it is so.

A stETH of one deployment beside the queue of another would take deposits that can never be withdrawn, so nothing is
read or built before this holds. Where the protocol has a locator, the addresses in it decide.
"""

from typing import Any

import structlog

from apps.common.errors import NotConfigured, ServiceError
from apps.ethereum.abilities import Abilities
from apps.ethereum.addresses import checksummed
from apps.ethereum.contracts import LIDO, LOCATOR, Contract
from apps.ethereum.endpoints import ChainUnavailable
from apps.ethereum.jsonrpc import RpcError, Unanswered
from apps.ethereum.logs import integer
from apps.protocols.calls import Call
from apps.protocols.chain import Block, Chain

log = structlog.get_logger(__name__)


class AddressCheck:
    """Remembers that the settings were found right; until then every request checks again."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self._right = False
        self._abilities = Abilities(chain.endpoints)

    def at_start(self) -> None:
        """Check once and log what was found. The service starts either way: its status page tells what is wrong, and
        endpoints that need the chain answer 503 until a later check succeeds."""
        try:
            self.require()
        except NotConfigured as error:
            log.error("lido_addresses_wrong", detail=error.detail)
        except ServiceError as error:
            log.warning("lido_addresses_unchecked", why=error.code)
        else:
            log.info("lido_addresses_right", chain_id=self.chain.chain_id)

    def require(self) -> None:
        """Raise `NotConfigured` naming the setting that is wrong, or `ChainUnavailable` while no node answers."""
        if not self._right:
            check_settings(self.chain)
            self._right = True

    def status(self) -> dict[str, Any]:  # a status page is free JSON
        """For the status page: checks anew, since a node may be replaced by another chain's at any time."""
        self._right = False  # until this check finds it so: a node that was down may come back as another chain's
        self.require()
        self._next_calls()
        nodes = self._abilities.all()
        return {"chain_id": self.chain.chain_id, "block_number": self.chain.block().number, "nodes": nodes}

    def _next_calls(self) -> None:
        """One small call of each kind that the next request makes: state at a block's hash, the horizon, logs, receipts.
        A node that lacks one of them, or a provider that holds all back, shows here first."""
        block = self.chain.block(self.chain.horizon())
        steth, topic = self.chain.steth.address, LIDO.events["TokenRebased"].topic
        self.chain.batch(
            [self.chain.balance(steth, block), self.chain.logs([steth], [topic], block.number, block.number)]
        )


def check_settings(chain: Chain) -> None:
    """One chain behind every RPC URL, the expected one; code at both addresses; the queue that the locator names."""
    _check_chain_ids(chain)
    block = chain.block()
    contracts = {"LIDO_STETH_ADDRESS": chain.steth, "LIDO_WITHDRAWAL_QUEUE_ADDRESS": chain.queue}
    codes = chain.batch([Call("eth_getCode", [contract.address, block.pin]) for contract in contracts.values()])
    for (name, contract), code in zip(contracts.items(), codes, strict=True):
        if code in {"0x", None}:
            raise NotConfigured(f"There is no contract at {contract.address}, which {name} names.")
    _check_locator(chain, block)


def _check_chain_ids(chain: Chain) -> None:
    """Reads fail over between the URLs, so one that is another chain's would mix two histories into one set of books."""
    found: set[int] = set()
    for endpoint in chain.endpoints.all:
        try:
            found.add(integer(endpoint.call("eth_chainId", [])))
        except (Unanswered, RpcError, TypeError, ValueError):
            continue  # a node that is down is no reason: the next one answers
    if not found:
        raise ChainUnavailable
    if len(found) > 1:
        raise NotConfigured(f"ETH_RPC_URL names nodes of different chains: {sorted(found)}.")
    wanted = chain.settings.chain_id
    if wanted is not None and found != {wanted}:
        raise NotConfigured(f"ETH_RPC_URL is chain {found.pop()}, and CHAIN_ID says {wanted}.")


def _check_locator(chain: Chain, block: Block) -> None:
    """Where stETH names a locator, it must name this stETH and this queue; without one there is nothing to compare."""
    answer = chain.batch([chain.call(chain.steth, "getLidoLocator", [], block, optional=True)])[0]
    if answer is None or int(answer, 16) == 0:
        return
    locator = Contract(checksummed(answer), LOCATOR)
    lido, queue = chain.batch(
        [chain.call(locator, name, [], block, optional=True) for name in ("lido", "withdrawalQueue")]
    )
    for name, found, ours in (
        ("LIDO_STETH_ADDRESS", lido, chain.steth.address),
        ("LIDO_WITHDRAWAL_QUEUE_ADDRESS", queue, chain.queue.address),
    ):
        if found is not None and int(found, 16) != 0 and checksummed(found) != ours:
            raise NotConfigured(f"{name} is {ours}, and the protocol's locator names {checksummed(found)}.")
