"""How tests are dealt out to the processes that run them side by side (`pytest -n 4`)."""

import pytest

# Folders whose modules share the servers that a fixture starts, and what the sharing is called.
TOGETHER = {
    "tests/browser/": "stack",
    "tests/integration/life/": "stack",
    "tests/integration/world/web/": "services",
}


def house_of(nodeid: str) -> str:
    """What the tests that share servers have in common: their module, or what their folder shares."""
    shared = (name for folder, name in TOGETHER.items() if nodeid.startswith(folder))
    return next(shared, nodeid.split("::", maxsplit=1)[0])


def make_scheduler(config: pytest.Config, log: object) -> object:
    """Deals out whole modules and folders, in the order of collection."""
    from xdist.scheduler import LoadScopeScheduling  # only where pytest-xdist is asked for

    class ByHouse(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist carries no types
        def _split_scope(self, nodeid: str) -> str:
            return house_of(nodeid)

    config.option.loadscopereorder = False
    return ByHouse(config, log)
