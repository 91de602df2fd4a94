"""The whole stack of one home: up, down, status, and the hard knocks that tests give it."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import requests

from apps.clients.ledger import LedgerClient
from apps.clients.pool import PoolClient
from apps.clients.protocols import ProtocolsClient
from apps.clients.relayer import RelayerClient
from apps.clients.rewards import RewardsClient
from apps.common.wei import ETHER
from apps.devnet.deployment import Deployment
from apps.devnet.oracle import Oracle
from apps.local import chain, postgres
from apps.local.errors import NotRunning, StartFailed
from apps.local.home import Home, State
from apps.local.ports import choose_ports, one_start_at_a_time
from apps.local.programs import WEB, WORKERS, Program, Programs
from apps.local.supervision import Supervisor
from migrations import runner

Say = Callable[[str], None]
GAS_FLOAT_WEI = 10 * ETHER
START_TIMEOUT_SEC = 300


@dataclass
class Stack:
    """One home's stack. `say` gets a line for each thing worth telling."""

    home: Home
    say: Say = field(default=lambda _line: None)

    def up(self, *, separate_custody: bool = False) -> None:
        """Start every part that does not run yet. Raises a `LocalError` that names what is missing and the remedy."""
        with self.home.locked(), one_start_at_a_time():
            state = self.home.create(separate_custody=separate_custody)
            supervisor = Supervisor(self.home, state)
            if not (state.ports and supervisor.running()):
                state.adopt_environment()
                self._choose_ports(state)
                self._check_tools(state)
                supervisor.start(Programs(self.home, state))
            try:
                self._start(state, supervisor)
            except BaseException:
                self._stop(state)
                raise

    def down(self) -> bool:
        """Stop everything, newest first; False when nothing ran."""
        with self.home.locked():
            if not self.running():
                return False
            self._stop(self.home.load())
            return True

    def erase(self) -> None:
        """Stop the stack and remove its home with all data."""
        if not self.home.exists():
            return
        self.down()
        Programs(self.home, self.home.load()).postgres.erase()
        shutil.rmtree(self.home.path, ignore_errors=True)

    def running(self) -> bool:
        if not self.home.exists():
            return False
        state = self.home.load()
        return bool(state.ports) and Supervisor(self.home, state).running()

    def processes(self) -> dict[str, dict[str, Any]]:  # as supervisor tells it
        return self._supervisor().processes()

    def status(self) -> dict[str, Any]:  # printed as JSON
        """What a caller needs to use the stack; no private key. Raises `NotRunning`."""
        if not self.running():
            raise NotRunning
        state = self.home.load()
        programs = Programs(self.home, state)
        deployment = state.deployment or {}
        return {
            "services": {name: programs.service_url(name) for name in WEB},
            "database_urls": {name: programs.database_url(name) for name in postgres.DATABASES},
            "broker_url": programs.broker_url,
            "rpc_url": programs.rpc_url,
            "chain_id": deployment.get("chain_id"),
            "pool_id": state.pool_id,
            "internal_api_key": state.internal_api_key,
            "relayer_api_key": state.relayer_api_key,
            "addresses": {
                "custody": state.custody,
                "operator": state.operator,
                "steth": deployment.get("steth"),
                "withdrawal_queue": deployment.get("withdrawal_queue"),
            },
        }

    def flower_url(self) -> str:
        return f"http://127.0.0.1:{self.home.load().ports['flower']}"

    def clients(self) -> "Clients":
        """HTTP clients of the five services, as the BFF and ops have them."""
        status = self.status()
        urls, key = status["services"], status["internal_api_key"]
        return Clients(
            ledger=LedgerClient(urls["ledger"], key),
            rewards=RewardsClient(urls["rewards"], key),
            protocols=ProtocolsClient(urls["protocols"], key, timeout=30),
            pool=PoolClient(urls["pool"], key),
            relayer=RelayerClient(urls["relayer"], status["relayer_api_key"]),
        )

    def oracle(self) -> Oracle:
        """The devnet's buttons. Raises `NotRunning`."""
        if not self.running():
            raise NotRunning
        state = self.home.load()
        return Oracle(Programs(self.home, state).rpc_url, Deployment.from_dict(state.deployment or {}))

    def stop(self, name: str) -> None:
        self._supervisor().stop_program(name)

    def start(self, name: str) -> None:
        """Start one program again and wait until it answers."""
        supervisor = self._supervisor()
        supervisor.launch(name)
        if name in WEB:
            self._wait_for({name}, self.home.load())

    def kill(self, name: str) -> None:
        """SIGKILL one program with all its children; the supervisor starts it again."""
        self._supervisor().kill_program(name)

    def wait_until_up(self) -> None:
        """Wait until every service answers and finds its database, and the broker where it has one."""
        self._wait_for(set(WEB), self.home.load())

    def kill_workers(self) -> None:
        """SIGKILL every worker with all its children; the supervisor starts them again."""
        for name in WORKERS:
            self.kill(name)

    def start_workers(self) -> None:
        for name in WORKERS:
            self._supervisor().launch(name)

    def _choose_ports(self, state: State) -> None:
        embedded = [program.name for program in Programs(self.home, state).parts()]
        state.ports, notes = choose_ports([*embedded, *WEB, "flower", "supervisor"], state.ports)
        self.home.save(state)
        for note in notes:
            self.say(note)

    def _check_tools(self, state: State) -> None:
        """Find every program before starting the first, so that nothing is half started for want of a tool."""
        for program in Programs(self.home, state).parts():
            program.command()

    def _start(self, state: State, supervisor: Supervisor) -> None:
        programs = Programs(self.home, state)
        parts = programs.parts()
        if not programs.external_postgres:
            programs.postgres.prepare()
        self._launch(parts, supervisor)
        self._wait("the database", lambda: postgres.answers(programs.server_url), supervisor, "postgres")
        postgres.create_databases(programs.server_url)
        for name in postgres.DATABASES:
            runner.upgrade(name, programs.database_url(name))
        self.say("databases are migrated")
        self._wait("the chain", lambda: chain.answers(programs.rpc_url), supervisor, "anvil")
        self._deploy(state, programs)
        self._launch(programs.services(), supervisor)
        self._wait_for(set(WEB), state)
        self._wait("Flower", lambda: _answers(f"{self.flower_url()}/healthcheck"), supervisor, "flower")
        chain.post_gas_float(self.clients().ledger, state.pool_id, state)
        self.say("all services answer")

    def _deploy(self, state: State, programs: Programs) -> None:
        if chain.is_deployed(programs.rpc_url, state.deployment):
            return
        state.deployment, state.gas_float_wei = chain.deploy_or_adopt(programs.rpc_url, state, GAS_FLOAT_WEI)
        self.home.save(state)
        self.say(f"Lido contracts are at {state.deployment['steth']}")

    def _launch(self, programs: list[Program], supervisor: Supervisor) -> None:
        for program in programs:
            supervisor.launch(program.name)

    def _wait_for(self, names: set[str], state: State) -> None:
        programs, supervisor = Programs(self.home, state), self._supervisor()
        for name in sorted(names):
            path = "/healthz" if name == "relayer" else f"/status/{name}"
            url = programs.service_url(name) + path
            self._wait(name, lambda url=url: _answers(url), supervisor, name)  # type: ignore[misc]

    def _wait(self, what: str, ready: Callable[[], bool], supervisor: Supervisor, program: str) -> None:
        """Wait for a part; a part that keeps dying is reported with its own last words."""
        deadline = time.monotonic() + START_TIMEOUT_SEC
        while not ready():
            found = supervisor.processes().get(program, {})
            if found.get("statename") == "FATAL" or time.monotonic() > deadline:
                log = self.home.logs / f"{program}.log"
                words = log.read_text(errors="replace")[-800:].strip() if log.exists() else ""
                raise StartFailed(f"{what} did not come up: {words or 'no output'}", f"See: staking logs {program}")
            time.sleep(0.1)

    def _stop(self, state: State) -> None:
        programs, supervisor = Programs(self.home, state), Supervisor(self.home, state)
        there = supervisor.processes()
        # Those that use the parts go first, so that none of them complains of a part that left.
        groups = [[program.name for program in group] for group in (programs.services(), programs.parts())]
        supervisor.stop([[name for name in group if name in there] for group in groups])

    def _supervisor(self) -> Supervisor:
        if not self.running():
            raise NotRunning
        return Supervisor(self.home, self.home.load())


@dataclass(frozen=True)
class Clients:
    """The five services."""

    ledger: LedgerClient
    rewards: RewardsClient
    protocols: ProtocolsClient
    pool: PoolClient
    relayer: RelayerClient


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=3).status_code == 200
    except requests.RequestException:
        return False
