"""The committed artifacts are what the sources compile to."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import apps.devnet
from apps.devnet.deployment import ARTIFACTS
from apps.ethereum.contracts import ABIS

DEVNET = Path(apps.devnet.__file__).parent


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    node = shutil.which("node")
    assert node is not None, "Node.js is missing"
    assert (DEVNET / "node_modules" / "solc").is_dir(), "the compiler is missing: make setup"
    output = tmp_path_factory.mktemp("artifacts")
    result = subprocess.run([node, "compile.js", str(output)], cwd=DEVNET, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return output


@pytest.mark.parametrize("name", ["Lido", "WithdrawalQueue", "LidoLocator"])
def test_artifact__compiled_again__same_bytes(rebuilt: Path, name: str) -> None:
    assert (rebuilt / f"{name}.json").read_text() == (ARTIFACTS / f"{name}.json").read_text()


def test_artifacts__compiler__the_pinned_one() -> None:
    pinned = json.loads((DEVNET / "package.json").read_text())["dependencies"]["solc"]
    for path in ARTIFACTS.glob("*.json"):
        assert json.loads(path.read_text())["compiler"].startswith(f"{pinned}+")


@pytest.mark.parametrize("name", ["Lido", "WithdrawalQueue", "LidoLocator"])
def test_used_interface__each_entry__as_in_the_contract(name: str) -> None:
    there = {_signature(item) for item in json.loads((ARTIFACTS / f"{name}.json").read_text())["abi"] if "name" in item}
    used = {_signature(item) for item in json.loads((ABIS / f"{name}.json").read_text())}
    assert used
    assert used <= there


def _signature(item: dict[str, object]) -> str:
    return f"{item['type']} {item['name']}({_kinds(item, 'inputs')}) returns ({_kinds(item, 'outputs')})"


def _kinds(item: dict[str, object], side: str) -> str:
    parts = item.get(side, [])
    assert isinstance(parts, list)
    return ", ".join(_kind(part) for part in parts)


def _kind(part: dict[str, object]) -> str:
    inner = f" of ({_kinds(part, 'components')})" if "components" in part else ""
    return f"{part['type']}{inner}{' indexed' if part.get('indexed') else ''}"
