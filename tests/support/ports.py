"""Ports for the servers that tests start: each process that runs tests has a block of its own, so that several of them
side by side, or two runs on one machine, never give one port to two servers."""

import socket
from itertools import cycle

from apps.local.ports import is_free

# Below the ports that the system gives to outgoing connections, and beside the stack's standard ones.
FIRST, LAST, BLOCK = 10_000, 30_000, 200


def free_port() -> int:
    """A port of this process's block on which nothing listens now, the least recently given one first."""
    return _block.next()


class Block:
    """The block is ours as long as we listen on its first port, and no other process can take it meanwhile."""

    def __init__(self) -> None:
        self._lock: socket.socket | None = None
        self._ports: cycle[int] = cycle(())

    def next(self) -> int:
        if self._lock is None:
            self._lock, first = _first_free_block()
            self._ports = cycle(range(first + 1, first + BLOCK))
        for _ in range(BLOCK):
            port = next(self._ports)
            if is_free(port):
                return port
        raise AssertionError(f"all {BLOCK} ports of a block are in use")

    def close(self) -> None:
        """Give the block back."""
        if self._lock is not None:
            self._lock.close()


_block = Block()


def _first_free_block() -> tuple[socket.socket, int]:
    for first in range(FIRST, LAST, BLOCK):
        lock = socket.socket()
        try:
            lock.bind(("127.0.0.1", first))
            lock.listen()
        except OSError:
            lock.close()
        else:
            return lock, first
    raise AssertionError("every block of ports is taken")
