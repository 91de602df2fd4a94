"""One look at the protocol for all that is only told: shared by what a worker process runs within the same second.

A look is shared where nothing is decided by it: why requests wait, and until when they probably do. Whatever is decided
takes a look of its own, since a second is many stakes: a batch is opened on the stake limit of now; a transaction is built
by protocols on the state of now; an unstake leaves the index only where the rate of now shows no loss; custody's ETH is
moved by what the operator holds now. The walk shares none: each of its questions names the block it is about.
"""

import time

from apps.clients.protocols import ProtocolsClient
from apps.clients.shapes.protocols import LidoState

LOOK_SEC = 1.0


class Look:
    """The protocol's latest state as this process saw it last. The time is the process's own, and decides nothing else."""

    def __init__(self, look_sec: float = LOOK_SEC) -> None:
        self._look_sec = look_sec
        self._seen: tuple[float, LidoState] | None = None

    def is_due(self) -> bool:
        """Whether the last look is old, so that there may be something new to tell."""
        return self._seen is None or time.monotonic() - self._seen[0] >= self._look_sec

    def state(self, protocols: ProtocolsClient) -> LidoState:
        """The state, at most a second old. Raises as the client does."""
        if self._seen is None or self.is_due():
            return self.now(protocols)
        return self._seen[1]

    def now(self, protocols: ProtocolsClient) -> LidoState:
        """The state of now, which others may share. Raises as the client does."""
        state = protocols.state()
        self._seen = time.monotonic(), state
        return state
