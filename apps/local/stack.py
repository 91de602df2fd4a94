"""The whole stack of one home: up, down, status, and the hard knocks that tests give it."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from apps.local import postgres
from apps.local.errors import NotRunning
from apps.local.home import Home, State
from apps.local.ports import choose_ports, one_start_at_a_time
from apps.local.programs import WEB, WORKERS, Programs
from apps.local.starting import Say, Start
from apps.local.supervision import Supervisor

if TYPE_CHECKING:  # imported where they are used: these take seconds, and most commands need none of them
    from apps.devnet.oracle import Oracle
    from apps.local.clients import Clients


@dataclass
class Stack:
    """One home's stack. `say` gets a line for each thing worth telling."""

    home: Home
    say: Say = field(default=lambda _line: None)

    def up(self, *, separate_custody: bool = False) -> None:
        """Start every part that does not run yet. Raises a `LocalError` that names what is missing and the remedy."""
        with self.home.locked(), one_start_at_a_time(), ThreadPoolExecutor(max_workers=1) as aside:
            state = self.home.create(separate_custody=separate_custody)
            supervisor = Supervisor(self.home, state)
            running = bool(state.ports) and supervisor.running()
            if not running:
                state.adopt_environment()
                self._choose_ports(state)
                self._check_tools(state)
            programs = Programs(self.home, state)
            try:
                # The supervisor imports its libraries meanwhile.
                cluster = aside.submit(programs.postgres.prepare) if not programs.external_postgres else None
                if not running:
                    supervisor.start(programs)
                if cluster is not None:
                    cluster.result()
                Start(self.home, programs, supervisor).run(self.say)
            except BaseException:
                if supervisor.running():
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
        found = self._supervisor().processes()
        done = {program.name for program in Programs(self.home, self.home.load()).preparations()}
        return {name: info for name, info in found.items() if name not in done}

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
        from apps.local.clients import connect

        status = self.status()
        return connect(status["services"], status["internal_api_key"], status["relayer_api_key"])

    def oracle(self) -> "Oracle":
        """The devnet's buttons. Raises `NotRunning`."""
        from apps.devnet.deployment import Deployment
        from apps.devnet.oracle import Oracle

        if not self.running():
            raise NotRunning
        state = self.home.load()
        return Oracle(Programs(self.home, state).rpc_url, Deployment.from_dict(state.deployment or {}))

    def stop(self, name: str) -> None:
        self._supervisor().stop_program(name)

    def start(self, name: str) -> None:
        """Start one program again and wait until it answers."""
        self._supervisor().launch(name)
        if name in WEB:
            self._begun().wait_for(name)

    def kill(self, name: str) -> None:
        """SIGKILL one program with all its children; the supervisor starts it again."""
        self._supervisor().kill_program(name)

    def wait_until_up(self) -> None:
        """Wait until every service answers and finds its database, and the broker where it has one."""
        self._begun().wait_for(*WEB)

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

    def _stop(self, state: State) -> None:
        programs, supervisor = Programs(self.home, state), Supervisor(self.home, state)
        there = supervisor.processes()
        # Those that use the parts go first, so that none of them complains of a part that left.
        users = [*programs.services(), *programs.preparations()]
        groups = [[program.name for program in group] for group in (users, programs.parts())]
        with ThreadPoolExecutor(max_workers=1) as aside:
            if (
                not programs.external_postgres
            ):  # the workers take two seconds to end, and its files as long to be written
                aside.submit(postgres.checkpoint, programs.server_url)
            supervisor.stop([[name for name in group if name in there] for group in groups])

    def _begun(self) -> Start:
        return Start(self.home, Programs(self.home, self.home.load()), self._supervisor())

    def _supervisor(self) -> Supervisor:
        if not self.running():
            raise NotRunning
        return Supervisor(self.home, self.home.load())
