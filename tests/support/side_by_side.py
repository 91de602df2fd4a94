"""How tests are dealt out to the processes that run them side by side (`pytest -n 4`)."""

import pytest

# Folders whose modules share the servers that a fixture starts, and what the sharing is called.
TOGETHER = {
    "tests/browser/": "stack",
    "tests/integration/life/": "stack",
    "tests/integration/openapi/": "five apps",
    "tests/integration/world/web/": "services",
}
# Modules of such a folder that bring servers of their own.
APART = tuple(f"tests/integration/life/test_life_{name}.py" for name in ("elsewhere", "separate_custody", "start"))
# What mostly waits, or takes long, is begun first: the short ones then fill the gaps, and no process ends late.
FIRST = (
    "tests/browser/",
    "tests/integration/life/",
    "tests/integration/world/web/",
    "tests/property/flows/",
    "tests/property/rewards/",
    "tests/crash/",
    "tests/integration/world/",
    "tests/integration/flows/",
)


def place_in_line(nodeid: str) -> int:
    """The order in which tests are begun."""
    return next((place for place, folder in enumerate(FIRST) if nodeid.startswith(folder)), len(FIRST))


def house_of(nodeid: str) -> str:
    """What the tests that share servers have in common: their module, or what their folder shares."""
    module = nodeid.split("::", maxsplit=1)[0]
    shared = (name for folder, name in TOGETHER.items() if module.startswith(folder) and module not in APART)
    return next(shared, module)


def make_scheduler(config: pytest.Config, log: object) -> object:
    """Deals out whole modules and folders, in the order of collection."""
    from xdist.scheduler import LoadScopeScheduling  # only where pytest-xdist is asked for

    class ByHouse(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist carries no types
        def _split_scope(self, nodeid: str) -> str:
            return house_of(nodeid)

    config.option.loadscopereorder = False
    return ByHouse(config, log)
