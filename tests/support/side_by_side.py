"""How tests are dealt out to the processes that run them side by side (`pytest -n 4`)."""

import pytest

# Folders whose modules share the servers that a fixture of the folder starts.
TOGETHER = ("tests/integration/life/", "tests/integration/openapi/", "tests/integration/world/web/")


def house_of(nodeid: str) -> str:
    """What the tests that share servers have in common: their module, or their folder."""
    return next((folder for folder in TOGETHER if nodeid.startswith(folder)), nodeid.split("::", maxsplit=1)[0])


def make_scheduler(config: pytest.Config, log: object) -> object:
    """Deals out whole modules and folders, in the order of collection."""
    from xdist.scheduler import LoadScopeScheduling  # only where pytest-xdist is asked for

    class ByHouse(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist carries no types
        def _split_scope(self, nodeid: str) -> str:
            return house_of(nodeid)

    config.option.loadscopereorder = False
    return ByHouse(config, log)
