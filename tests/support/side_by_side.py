"""How tests are dealt out to the processes that run them side by side (`pytest -n 3`)."""

import pytest
from xdist.scheduler import LoadScopeScheduling

# Folders whose modules share the servers that a fixture of the folder starts.
TOGETHER = ("tests/integration/life/", "tests/integration/world/web/")


class ByModule(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist carries no types
    """One process runs a whole module, or a whole folder that shares its servers, in the order of collection."""

    def __init__(self, config: pytest.Config, log: object) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return next((folder for folder in TOGETHER if nodeid.startswith(folder)), nodeid.split("::", maxsplit=1)[0])
