"""The relayer's real processes: web server, Celery worker, broker; and beat's part, a hint a second, played by a thread."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import requests

from apps.common.celery_settings import HintPublisher
from apps.local import tools
from tests.support.ports import free_port
from tests.support.relayer import ROOT
from tests.support.workers import worker_environment


@dataclass
class RelayerStack:
    url: str
    broker_port: int
    broker_url: str
    worker: "subprocess.Popen[bytes]"


@contextmanager
def relayer_stack(database_url: str, rpc_urls: Sequence[str], **settings: str) -> Iterator[RelayerStack]:
    """Start broker, web server and worker; kill them when the block ends."""
    broker_port, web_port = free_port(), free_port()
    broker_url = f"redis://127.0.0.1:{broker_port}/0"
    own = worker_environment(database_url, rpc_urls, CELERY_BROKER_URL=broker_url, **settings)
    environment = {**os.environ, **own, "HTTP_PORT": str(web_port)}
    broker = [str(tools.valkey_server()), "--port", str(broker_port), "--bind", "127.0.0.1", "--save", ""]
    web = [sys.executable, "-m", "relayer"]
    worker = [sys.executable, "-m", "celery", "-A", "relayer.tasks:celery", "worker", "-Q", "relayer", "-c", "1"]
    worker += ["--loglevel", "WARNING", "--without-gossip", "--without-mingle"]
    processes = [
        subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for command in (broker, web, worker)
    ]
    stopped = threading.Event()
    hints = HintPublisher(broker_url)

    def beat() -> None:
        while not stopped.wait(1.0):
            hints.send("relayer.tasks.pump", queue="relayer")

    beating = threading.Thread(target=beat, daemon=True)
    beating.start()
    stack = RelayerStack(f"http://127.0.0.1:{web_port}", broker_port, broker_url, processes[2])
    try:
        _wait_until_healthy(stack, processes)
        yield stack
    finally:
        stopped.set()
        beating.join()
        for process in processes:
            process.kill()
            process.wait(timeout=30)


def _wait_until_healthy(stack: RelayerStack, processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    deadline = time.monotonic() + 120
    while True:
        assert all(process.poll() is None for process in processes), "a process of the relayer ended at once"
        assert time.monotonic() < deadline, "the relayer was not healthy within 120 s"
        try:
            if requests.get(f"{stack.url}/healthz", timeout=10).status_code == 200:
                return
        except requests.RequestException:
            time.sleep(0.1)
