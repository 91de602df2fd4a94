"""The only shared import of web3: providers with failover, and blocks the books may act on."""

from collections.abc import Sequence
from typing import Any, cast

import structlog
from eth_typing import URI
from web3 import HTTPProvider, Web3
from web3.providers.base import JSONBaseProvider
from web3.types import RPCEndpoint, RPCResponse

from apps.common.errors import NotConfigured, Unavailable
from apps.common.settings import require_address

log = structlog.get_logger(__name__)

# Chains with a `finalized` tag worth waiting for; elsewhere depth decides (a development node finalizes nothing real).
PUBLIC_CHAINS = frozenset({1, 560048, 17000, 11155111})


class ChainUnavailable(Unavailable):
    """No Ethereum node answered in time."""

    code = "chain_unavailable"


class FailoverProvider(JSONBaseProvider):
    """Asks the first endpoint and, when it does not answer, the next; only for reads.

    web3's own retries are off: they turn a delivered transaction into an error and hide which endpoint failed.
    """

    def __init__(self, urls: Sequence[str], timeout: float) -> None:
        super().__init__()
        self._providers = [
            HTTPProvider(URI(url), request_kwargs={"timeout": timeout}, exception_retry_configuration=None)
            for url in urls
        ]

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        return cast(RPCResponse, self._ask(lambda provider: provider.make_request(method, params)))

    def make_batch_request(self, requests: list[tuple[RPCEndpoint, Any]]) -> Any:
        return self._ask(lambda provider: provider.make_batch_request(requests))

    def _ask(self, call: Any) -> Any:
        for number, provider in enumerate(self._providers, start=1):
            try:
                return call(provider)
            except Exception as error:  # noqa: BLE001  # any transport fault: the next endpoint may answer
                log.warning("rpc_endpoint_failed", endpoint=number, kind=type(error).__name__)
        raise ChainUnavailable


def make_web3(urls: Sequence[str], timeout: float = 10.0) -> Web3:
    """A web3 for reads over one or more endpoints; nothing is asked before first use."""
    return Web3(FailoverProvider(urls, timeout))


def checksum_setting(name: str, value: str | None) -> str:
    """A setting's address, checksummed; `NotConfigured` names the setting when it is a placeholder."""
    return Web3.to_checksum_address(require_address(name, value))


def money_horizon(web3: Web3, chain_id: int, confirmations: int, mode: str | None) -> int:
    """The highest block number that the books may act on.

    `mode` is ``finalized``, ``depth`` or None (finalized on public chains, depth elsewhere). Depth N means that N
    blocks stand on top of or at the block: head - N + 1. Never below 0.
    """
    chosen = mode or ("finalized" if chain_id in PUBLIC_CHAINS else "depth")
    if chosen == "finalized":
        return int(web3.eth.get_block("finalized")["number"])
    return max(0, int(web3.eth.block_number) - confirmations + 1)


__all__ = ["ChainUnavailable", "NotConfigured", "checksum_setting", "make_web3", "money_horizon"]
