"""Which port each part listens on: the standard one, another when that is taken, or exactly the one asked for."""

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from apps.local.errors import LocalError, PortInUse

STANDARD = {
    "postgres": 5432,
    "valkey": 6379,
    "anvil": 8545,
    "ledger": 8101,
    "protocols": 8102,
    "rewards": 8103,
    "pool": 8104,
    "relayer": 8082,
    "flower": 5555,
    "supervisor": 9001,
}


def choose_ports(names: list[str], remembered: dict[str, int]) -> tuple[dict[str, int], list[str]]:
    """Ports for the parts named, and a note for each that is not the standard one.

    A port named by ``STAKING_PORT_<NAME>`` is a wish to be kept or refused; any other may be replaced. Raises
    `PortInUse`.
    """
    chosen: dict[str, int] = {}
    notes = []
    for name in names:
        variable = f"STAKING_PORT_{name.upper()}"
        asked = os.environ.get(variable)
        if asked:
            chosen[name] = _asked(name, variable, asked)
            continue
        port = remembered.get(name, STANDARD[name])
        if port in chosen.values() or not is_free(port):
            notes_port = port
            port = any_free_port(set(chosen.values()))
            notes.append(f"port {notes_port} is in use: {name} listens on {port} instead (choose with {variable})")
        chosen[name] = port
    return chosen, notes


@contextmanager
def one_start_at_a_time() -> Iterator[None]:
    """Held from choosing ports until their parts listen: else two stacks of one user that start together may choose the
    same ones. A second start waits; a process that dies lets go."""
    path = Path(tempfile.gettempdir()) / f"staking-ports-{os.getuid()}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_free(port: int) -> bool:
    """Whether this machine's loopback would let us listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _asked(name: str, variable: str, text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise LocalError(f"{variable}={text} is not a port.", "Use a number from 1 to 65535.")
    if not is_free(int(text)):
        raise PortInUse(
            f"Port {text}, asked for {name} by {variable}, is in use.",
            f"Stop the program that listens there, or unset {variable} and a free port is chosen.",
        )
    return int(text)


def any_free_port(taken: set[int] | None = None) -> int:
    """A port of loopback that nobody listens on now."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in (taken or ()):
            return port
