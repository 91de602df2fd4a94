"""The stack's programs under `supervisor`: started, restarted when they die, stopped, over its XML-RPC on loopback."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from xmlrpc.client import Fault, ServerProxy

import psutil

from apps.local.errors import StartFailed
from apps.local.home import Home, State
from apps.local.programs import Program, Programs, supervisor_environment

_CONFIGURATION = """\
[supervisord]
logfile={run}/supervisord.log
logfile_maxbytes=1MB
logfile_backups=1
pidfile={run}/supervisord.pid
childlogdir={run}
directory={run}

[inet_http_server]
port=127.0.0.1:{port}
username=staking
password={password}

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
_PROGRAM = """
[program:{name}]
command={python} -m apps.local.launch {name}
directory={root}
autostart=false
autorestart={restart}
startsecs=0
startretries=20
stopsignal={signal}
stopwaitsecs={wait}
stopasgroup=false
killasgroup=true
redirect_stderr=true
stdout_logfile={logs}/{name}.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=1
"""


# It imports the libraries of all programs before it answers.
IMPORT_TIMEOUT_SEC = 120


class Supervisor:
    """The supervisor of one home."""

    def __init__(self, home: Home, state: State) -> None:
        self._home = home
        self._state = state

    def running(self) -> bool:
        """Whether the supervisor of this home answers (somebody else's on the same port refuses our password)."""
        try:
            return bool(self._rpc().supervisor.getState()["statename"] == "RUNNING")
        except Exception:  # noqa: BLE001  # no supervisor, or one that is not ours
            return False

    def start(self, programs: Programs) -> None:
        """Start the supervisor itself; its programs start one by one, by `launch`."""
        configuration = self._home.run / "supervisord.conf"
        descriptor = os.open(configuration, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as handle:
            handle.write(self._configuration(programs.all()))
        finished = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "apps.local.forking", "-c", str(configuration)],
            capture_output=True,
            text=True,
            timeout=IMPORT_TIMEOUT_SEC,
            env=supervisor_environment(self._home),
            check=False,
        )
        deadline = time.monotonic() + 15
        while finished.returncode == 0 and not self.running():
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        if not self.running():
            raise StartFailed(
                f"The supervisor did not start: {(finished.stderr or finished.stdout).strip()[-300:]}",
                f"See {self._home.run / 'supervisord.log'}.",
            )

    def launch(self, name: str) -> None:
        """Start a program unless it runs."""
        try:
            self._rpc().supervisor.startProcess(name, False)
        except Fault as fault:
            if "ALREADY_STARTED" not in fault.faultString:
                raise StartFailed(
                    f"{name} cannot be started: {fault.faultString}", f"See: staking logs {name}"
                ) from fault

    def stop_program(self, name: str) -> None:
        """Stop a program and wait until it is gone."""
        try:
            self._rpc(timeout=60).supervisor.stopProcess(name, True)
        except Fault as fault:
            if "NOT_RUNNING" not in fault.faultString:
                raise

    def kill_program(self, name: str) -> None:
        """SIGKILL a program with all its children, as a machine's death would; the supervisor starts it again."""
        pid = int(self.processes()[name]["pid"])
        if pid == 0:
            return
        try:
            family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in family:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(family[1:], timeout=10)

    def processes(self) -> dict[str, dict[str, Any]]:  # as supervisor tells it
        """Per program: ``statename``, ``pid``, ``spawnerr``."""
        return {str(info["name"]): dict(info) for info in self._rpc().supervisor.getAllProcessInfo()}

    def stop(self, groups: list[list[str]]) -> None:
        """Stop group after group, the programs of each at once, then the supervisor; returns when it is gone."""
        try:
            pid = int((self._home.run / "supervisord.pid").read_text())
            process = psutil.Process(pid)
        except (OSError, ValueError, psutil.NoSuchProcess):
            process = None
        for group in groups:
            # Each waits for its own end in a thread of its own: the slowest program sets the pace, not their sum.
            with ThreadPoolExecutor(max_workers=max(1, len(group))) as pool:
                list(pool.map(self.stop_program, group))
        self._rpc().supervisor.shutdown()
        deadline = time.monotonic() + 60
        # Asked something, it goes round its loop at once, and needs a few rounds to end; else each takes a second.
        while process is not None and process.is_running() and time.monotonic() < deadline:
            self.running()
            time.sleep(0.02)

    def _configuration(self, programs: list[Program]) -> str:
        head = _CONFIGURATION.format(
            run=_escaped(self._home.run), port=self._state.ports["supervisor"], password=self._state.supervisor_password
        )
        return head + "".join(
            _PROGRAM.format(
                name=program.name,
                restart="false" if program.once else "true",
                python=_escaped(sys.executable),
                root=_escaped(self._home.run),
                signal=program.stop_signal,
                wait=program.stop_wait_sec,
                logs=_escaped(self._home.logs),
            )
            for program in programs
        )

    def _rpc(self, timeout: float = 10) -> Any:
        from xmlrpc.client import Transport

        class TimedTransport(Transport):
            def make_connection(self, host: Any) -> Any:
                connection = super().make_connection(host)
                connection.timeout = timeout
                return connection

        address = f"127.0.0.1:{self._state.ports['supervisor']}"
        return ServerProxy(
            f"http://staking:{self._state.supervisor_password}@{address}/RPC2", transport=TimedTransport()
        )


def _escaped(path: object) -> str:
    return str(path).replace("%", "%%")
