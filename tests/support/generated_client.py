"""Clients that openapi-python-client makes of `docs/api`, as an integrator's build would make them."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from apps.common.auth import HEADER
from apps.local.generated import DOCS

PACKAGE = "generated_{}_client"


@contextmanager
def generated(service: str, url: str, key: str, directory: Path) -> Iterator["GeneratedClient"]:
    """A client of one service, generated into a directory and imported from there."""
    (directory / "config.yml").write_text("post_hooks: []\n")  # nobody reads its layout
    name = PACKAGE.format(service)
    command = ["generate", "--path", str(DOCS / "api" / f"{service}.json"), "--meta", "none", "--fail-on-warning"]
    command += ["--output-path", str(directory / name), "--config", str(directory / "config.yml")]
    subprocess.run(
        [sys.executable, "-m", "openapi_python_client", *command], check=True, capture_output=True, timeout=120
    )
    sys.path.insert(0, str(directory))
    try:
        package = importlib.import_module(name)
        client = package.AuthenticatedClient(base_url=url, token=key, prefix="", auth_header_name=HEADER, timeout=60)
        with client as opened:
            yield GeneratedClient(name, opened)
    finally:
        sys.path.remove(str(directory))
        for module in [one for one in sys.modules if one == name or one.startswith(f"{name}.")]:
            del sys.modules[module]


class GeneratedClient:
    """Finds the functions and models of a generated package by the names that its code would be written with."""

    def __init__(self, package: str, client: Any) -> None:
        self._package = package
        self._client = client

    def model(self, name: str, **values: Any) -> Any:
        """A body: ``model("new_stake", user_id=…)`` for ``NewStake(user_id=…)``."""
        module = importlib.import_module(f"{self._package}.models.{name}")
        return getattr(module, name.title().replace("_", ""))(**values)

    def enum(self, name: str, value: str) -> Any:
        """A member of a generated enum."""
        module = importlib.import_module(f"{self._package}.models.{name}")
        return getattr(module, name.title().replace("_", ""))(value)

    def call(self, tag: str, operation: str, *path: str, **given: Any) -> Any:
        """``api.<tag>.<operation>.sync(…)``: the answer as the document types it."""
        return self._module(tag, operation).sync(*path, client=self._client, **given)

    def detailed(self, tag: str, operation: str, *path: str, **given: Any) -> Any:
        """The same with status and headers."""
        return self._module(tag, operation).sync_detailed(*path, client=self._client, **given)

    def _module(self, tag: str, operation: str) -> ModuleType:
        return importlib.import_module(f"{self._package}.api.{tag}.{operation}")
