"""Real parts for every tier: one PostgreSQL a process, a database of its own for every test that asks."""

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from migrations import runner
from tests.support import claims, tally
from tests.support.compiled import share_compiled_statements
from tests.support.loopback import ask_for_no_proxy
from tests.support.postgres import Server, start_postgres
from tests.support.side_by_side import make_scheduler, place_in_line
from tests.support.stack import SharedStack

TIERS = ("unit", "property", "integration", "crash", "browser")
ROOT = Path(__file__).parent


def pytest_configure() -> None:
    """A fault's trace as Python writes it: drawing it with every frame's variables takes a second each."""
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, plain])
    share_compiled_statements()
    ask_for_no_proxy()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test's tier is the folder it lies in; what takes long comes first."""
    for item in items:
        tier = item.path.relative_to(ROOT).parts[0]
        assert tier in TIERS, f"{item.path} lies in no tier"
        item.add_marker(getattr(pytest.mark, tier))
    items.sort(key=lambda item: place_in_line(item.nodeid))


def pytest_collection_finish() -> None:
    """What is imported by now stays to the end: the garbage collector need not walk it again at every turn."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    return make_scheduler(config, log)


# ---- what was started, told at the end ----


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker hands its counts to the process that prints."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["started"] = dict(tally.STARTED)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    tally.STARTED.update(Counter(getattr(node, "workeroutput", {}).get("started", {})))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    started = ", ".join(f"{number} {what}" for what, number in sorted(tally.STARTED.items()))
    terminalreporter.write_line(f"Started: {started or 'nothing'}.")


# ---- what operations declare ----


@pytest.fixture(autouse=True)
def every_refusal_is_declared() -> Iterator[None]:
    """Fails a test in which an operation answered with a problem that its view does not declare (`Blueprint.refuses`)."""
    with claims.watched() as strays:
        yield
    assert sorted(set(strays)) == [], "declare it beside the view: @blueprint.refuses(…)"


# ---- a stack ----


@pytest.fixture(scope="session")
def shared_stack() -> Iterator[SharedStack]:
    shared = SharedStack()
    yield shared
    shared.stop()


# ---- databases ----


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    with start_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def migrated_templates() -> dict[str, str]:
    """Names of the databases that each service's tests are copied from."""
    return {}


@pytest.fixture(scope="session")
def made_databases() -> list[str]:
    """URLs of the databases that were made, in order."""
    return []


@pytest.fixture(scope="session")
def make_database(
    postgres: Server, migrated_templates: dict[str, str], made_databases: list[str]
) -> Callable[[str], str]:
    """``make_database(service)`` returns the URL of a fresh, migrated database.

    One made by a test, or by a fixture of a single test, is nobody's when that test has ended, and soon gone.
    """

    def make(service: str) -> str:
        if service not in migrated_templates:
            url = postgres.create(f"template_{service}")
            runner.upgrade(service, url)
            migrated_templates[service] = url.rsplit("/", 1)[1]
        url = postgres.create(service, template=migrated_templates[service])
        made_databases.append(url)
        return url

    return make


@pytest.fixture(autouse=True)
def drop_databases(request: pytest.FixtureRequest, made_databases: list[str]) -> Iterator[None]:
    """Drop what was made after this. It is set up after every fixture of a wider scope and ends as the test's last.

    The servers keep their data in memory: a run's thousand databases together would fill it.
    """
    before = len(made_databases)
    yield
    if len(made_databases) > before:
        server: Server = request.getfixturevalue("postgres")
        server.drop(made_databases[before:])
        del made_databases[before:]
