"""The five services as production starts them: ``python -m apps.ledger`` and its like, each a process of its own."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import requests

from apps.common.auth import HEADER
from apps.local import tools
from tests.support import tally
from tests.support.lido import Desk
from tests.support.ports import free_port
from tests.support.workers import worker_environment

ROOT = Path(__file__).parents[2]
KEY = "a-key-of-the-tests"
SERVICES = ("ledger", "protocols", "rewards", "pool", "relayer")
# A read of each that needs the key.
READS = {
    "ledger": "/v1/totals",
    "protocols": "/v1/reconciliations",
    "rewards": "/v1/events",
    "pool": "/v1/requests",
    "relayer": "/v1/transactions",
}


@dataclass(frozen=True)
class Program:
    """Which Python runs which tree: the one that tests run in, unless a test brings another."""

    python: str = sys.executable
    tree: Path = ROOT

    def start(
        self, module: str, *arguments: str, environment: Mapping[str, str], stderr: int | None = subprocess.DEVNULL
    ) -> "subprocess.Popen[bytes]":
        """``python -m module`` in an environment that is given whole but for the two paths."""
        own = {"PATH": os.environ["PATH"], "PYTHONPATH": str(self.tree), **environment}
        command = [self.python, "-m", module, *arguments]
        return subprocess.Popen(command, env=own, cwd=self.tree, stdout=subprocess.DEVNULL, stderr=stderr)


@dataclass
class Service:
    """One running service, and a caller of the house."""

    name: str
    port: int
    process: "subprocess.Popen[bytes]"
    key: str = KEY
    environment: Mapping[str, str] = field(default_factory=dict)
    session: requests.Session = field(default_factory=requests.Session)

    @cached_property
    def paths(self) -> dict[str, Any]:
        """The documented paths, asked for once."""
        found: dict[str, Any] = self.get("/openapi.json").json()["paths"]
        return found

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def status_path(self) -> str:
        return "/healthz" if self.name == "relayer" else f"/status/{self.name}"

    def get(self, path: str, **options: Any) -> requests.Response:
        headers = {HEADER: self.key, **options.pop("headers", {})}
        return self.session.get(self.url + path, headers=headers, timeout=60, **options)

    def post(self, path: str, body: Any, **options: Any) -> requests.Response:
        headers = {HEADER: self.key, **options.pop("headers", {})}
        return self.session.post(self.url + path, json=body, headers=headers, timeout=60, **options)

    def operations(self, method: str) -> list[tuple[str, frozenset[str]]]:
        """Every documented path of a method, its ids filled in with what nobody has, and its query parameters."""
        found = []
        for path, item in self.paths.items():
            if method.lower() in item and item[method.lower()]["security"]:  # the open pages are not the service's own
                parameters = item[method.lower()]["parameters"]
                query = frozenset(one["name"] for one in parameters if one.get("in") == "query")
                found.append((re.sub(r"\{[^}]*\}", "nobody", path), query))
        return found

    def assert_serves(self) -> None:
        """A call of the house and the status page succeed, each on a connection of its own, as a newcomer's would."""
        for path in (READS[self.name], self.status_path):
            answer = requests.get(self.url + path, headers={HEADER: self.key}, timeout=60)
            assert answer.status_code == 200, (self.name, path, answer.text)
        assert self.process.poll() is None, f"{self.name} has ended"


@contextmanager
def running(
    name: str, environment: Mapping[str, str], key: str = KEY, healthy: int = 200, program: Program | None = None
) -> Iterator[Service]:
    """Start one service by its own command, wait until its status page says 200, and end it with the block.

    `healthy` is what the page says instead where a part of the service is missing on purpose.
    """
    tally.count("services")
    port = free_port()
    whole = {"HTTP_PORT": str(port), "INTERNAL_API_KEY": KEY, **environment}
    process = (program or Program()).start("relayer" if name == "relayer" else f"apps.{name}", environment=whole)
    service = Service(name, port, process, key, whole)
    try:
        deadline = time.monotonic() + 120
        while not _says(service, healthy):
            assert process.poll() is None, f"{name} ended at once"
            assert time.monotonic() < deadline, f"{name} was not healthy within 120 s"
            time.sleep(0.05)
        yield service
    finally:
        service.session.close()
        process.kill()
        process.wait(timeout=30)


@contextmanager
def broker() -> Iterator[str]:
    """A broker; yields its URL."""
    port = free_port()
    command = [str(tools.valkey_server()), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait(timeout=30)


@contextmanager
def five_services(
    desk: Desk, make_database: Callable[[str], str], program: Program | None = None
) -> Iterator[dict[str, Service]]:
    """All of them, each on a database of its own, with one node and one broker, and knowing each other."""
    lido = {
        "CUSTODY_ETH_ADDRESS": desk.custody,
        "RELAYER_OPERATOR_ADDRESS": desk.operator,
        "LIDO_STETH_ADDRESS": desk.deployment.steth,
        "LIDO_WITHDRAWAL_QUEUE_ADDRESS": desk.deployment.withdrawal_queue,
        "CONFIRMATIONS": "1",
    }
    with ExitStack() as stack:
        broker_url = stack.enter_context(broker())
        found: dict[str, Service] = {}
        for name in ("ledger", "rewards", "protocols", "relayer", "pool"):
            url = make_database(name)
            if name == "relayer":
                own = worker_environment(url, [desk.rpc_url], RELAYER_HTTP_API_KEY=KEY)
            else:
                own = {"DATABASE_URL": url, "ETH_RPC_URL": desk.rpc_url, "RELAYER_HTTP_API_KEY": KEY}
            urls = {f"{other.upper()}_BASE_URL": service.url for other, service in found.items()}
            environment = {**own, **lido, **urls, "CELERY_BROKER_URL": broker_url}
            found[name] = stack.enter_context(running(name, environment, program=program))
        yield found


def _says(service: Service, status: int) -> bool:
    try:
        return requests.get(service.url + service.status_path, timeout=60).status_code == status
    except requests.RequestException:
        return False
