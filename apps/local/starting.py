"""The order in which a stack comes up, and how it is waited for."""

import json
import time
from collections.abc import Callable

from apps.local import postgres
from apps.local.errors import LocalError, StartFailed
from apps.local.home import Home
from apps.local.probes import answers, chain_answers
from apps.local.programs import CONTRACTS, GAS_FLOAT, WEB, Program, Programs, migration_of
from apps.local.supervision import Supervisor

Say = Callable[[str], None]
TIMEOUT_SEC = 300
PAUSE_SEC = 0.05


class Start:
    """One start of a home's programs, whose supervisor runs. What runs already is left alone."""

    def __init__(self, home: Home, programs: Programs, supervisor: Supervisor) -> None:
        self._home = home
        self._programs = programs
        self._supervisor = supervisor

    def run(self, say: Say) -> None:
        """Parts, then what is prepared on them, then services; returns when all of it answers."""
        self._launch(self._programs.parts())
        self._wait("the database", lambda: postgres.answers(self._programs.server_url), "postgres")
        migrations = [migration_of(name) for name in postgres.DATABASES]
        for name in migrations:
            self._begin(name)
        self._wait("the chain", lambda: chain_answers(self._programs.rpc_url), "anvil")
        self._begin(CONTRACTS)
        for name in migrations:
            self._finish(name)
        say("databases are migrated")
        self._finish(CONTRACTS)
        say(f"Lido contracts are at {(self._home.load().deployment or {}).get('steth')}")
        self._launch(self._programs.services())
        self.wait_for("ledger")
        self._begin(GAS_FLOAT)
        self.wait_for(*WEB)
        self._wait("Flower", lambda: answers(f"{self._programs.service_url('flower')}/healthcheck"), "flower")
        self._finish(GAS_FLOAT)
        say("all services answer")

    def wait_for(self, *services: str) -> None:
        """Wait until each service answers and finds its database, and the broker where it has one."""
        for name in services:
            path = "/healthz" if name == "relayer" else f"/status/{name}"
            url = self._programs.service_url(name) + path
            self._wait(name, lambda url=url: answers(url), name)  # type: ignore[misc]

    def _launch(self, programs: list[Program]) -> None:
        for program in programs:
            self._supervisor.launch(program.name)

    def _begin(self, preparation: str) -> None:
        self._home.said_by(preparation).unlink(missing_ok=True)
        self._supervisor.launch(preparation)

    def _finish(self, preparation: str) -> None:
        """Wait until a preparation is done; raises what it says, or `StartFailed`."""

        def ended() -> bool:
            return self._info(preparation).get("statename") not in {"STARTING", "RUNNING", "STOPPING"}

        self._wait(preparation, ended, preparation)
        if self._info(preparation).get("statename") == "EXITED" and self._info(preparation)["exitstatus"] == 0:
            return
        said = self._home.said_by(preparation)
        if said.exists():
            raise LocalError(*json.loads(said.read_text()))
        raise self._failure(preparation, preparation)

    def _wait(self, what: str, ready: Callable[[], bool], program: str) -> None:
        """Wait for a part; a part that keeps dying is reported with its own last words."""
        deadline = time.monotonic() + TIMEOUT_SEC
        while not ready():
            if self._info(program).get("statename") == "FATAL" or time.monotonic() > deadline:
                raise self._failure(what, program)
            time.sleep(PAUSE_SEC)

    def _failure(self, what: str, program: str) -> StartFailed:
        log = self._home.logs / f"{program}.log"
        words = log.read_text(errors="replace")[-800:].strip() if log.exists() else ""
        return StartFailed(f"{what} did not come up: {words or 'no output'}", f"See: staking logs {program}")

    def _info(self, program: str) -> dict[str, object]:
        return self._supervisor.processes().get(program, {})
