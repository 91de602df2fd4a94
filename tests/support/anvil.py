"""A real development chain for a test."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from apps.local import tools
from apps.local.probes import chain_answers
from tests.support import tally
from tests.support.ports import free_port


@dataclass(frozen=True)
class Anvil:
    url: str


@contextmanager
def start_anvil(*options: str, chain_id: int = 31337) -> Iterator[Anvil]:
    """Start a node that mines a block per transaction, unless options say otherwise."""
    tally.count("nodes")
    port = free_port()
    argv = [
        str(tools.anvil()),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--chain-id",
        str(chain_id),
        "--silent",
        *options,
    ]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while not chain_answers(url):
            assert process.poll() is None, "anvil ended at once"
            assert time.monotonic() < deadline, "anvil did not answer within 60 s"
            time.sleep(0.05)
        yield Anvil(url)
    finally:
        process.kill()
        process.wait(timeout=30)
