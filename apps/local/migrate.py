"""Which databases `staking migrate` means."""

import importlib
from collections.abc import Iterator

from apps.common.settings import SettingsReader
from apps.local.postgres import DATABASES
from apps.local.programs import ROOT
from apps.local.stack import Stack
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


def _configured_url(name: str) -> str:
    """The URL that the service's own settings name; the relayer composes its own from five names."""
    if name == "relayer":
        return str(importlib.import_module("relayer.settings").load_database_url())
    reader = SettingsReader(name, ROOT / "apps" / name)
    url = reader.database_url()
    reader.finish()
    return url
