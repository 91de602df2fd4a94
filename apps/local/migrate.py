"""Which databases `staking migrate` and `staking trim-history` mean."""

import importlib
from collections.abc import Iterator

from apps.common.database import make_engine, make_sessions
from apps.common.settings import SettingsReader, normalise_database_url
from apps.local.errors import LocalError
from apps.local.postgres import DATABASES
from apps.local.programs import ROOT
from apps.local.stack import Stack
from apps.pool.trim import days_of, trim_deliveries, trim_history
from migrations import runner


def migrate_databases(stack: Stack, service: str | None, *, downward: bool, revision: str | None) -> Iterator[str]:
    """Migrate and tell each step. Without a running stack, the URL is the one that the service's own settings name."""
    for name in [service] if service else DATABASES:
        url = stack.status()["database_urls"][name] if stack.running() else _configured_url(name)
        if downward:
            runner.downgrade(name, url, revision or "base")
        else:
            runner.upgrade(name, url, revision or "head")
        yield f"{name}: {'down' if downward else 'up'} to {revision or ('base' if downward else 'head')}"


def trim_pool_history(stack: Stack, older_than: str) -> tuple[int, int]:
    """Trim the history of ended flows, and deliveries that were taken; returns how many of each. Raises `LocalError`."""
    try:
        days = days_of(older_than)
    except ValueError as error:
        raise LocalError(f"--older-than {older_than}: {error}", "Name days, for example 90d.") from error
    url = stack.status()["database_urls"]["pool"] if stack.running() else _configured_url("pool")
    sessions = make_sessions(make_engine(normalise_database_url(url)))
    return trim_history(sessions, days), trim_deliveries(sessions, days)


def _configured_url(name: str) -> str:
    """The URL that the service's own settings name; the relayer composes its own from five names."""
    if name == "relayer":
        return str(importlib.import_module("relayer.settings").load_database_url())
    reader = SettingsReader(name, ROOT / "apps" / name)
    url = reader.database_url()
    reader.finish()
    return url
