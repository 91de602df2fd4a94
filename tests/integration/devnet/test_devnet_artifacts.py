"""The committed artifacts are what the sources compile to."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import apps.devnet
from apps.devnet.deployment import ARTIFACTS
from apps.protocols import lido_abi
from apps.protocols.events import _SIGNATURES

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


def test_service_interface__functions_and_events__all_in_the_contracts() -> None:
    for name, used in (("Lido", lido_abi.STETH), ("WithdrawalQueue", lido_abi.QUEUE)):
        there = {
            _signature(item) for item in json.loads((ARTIFACTS / f"{name}.json").read_text())["abi"] if "name" in item
        }
        missing = {_signature(item) for item in used} - there
        assert not missing


def test_service_topics__every_event__spelt_as_in_the_contracts() -> None:
    there = set()
    for path in ARTIFACTS.glob("*.json"):
        for item in json.loads(path.read_text())["abi"]:
            if item["type"] == "event":
                there.add(f"{item['name']}({','.join(part['type'] for part in item['inputs'])})")
    assert set(_SIGNATURES.values()) <= there


def _signature(item: dict[str, object]) -> str:
    inputs = item.get("inputs", [])
    assert isinstance(inputs, list)
    marks = [f"{part['type']}{' indexed' if part.get('indexed') else ''}" for part in inputs]
    return f"{item['type']} {item['name']}({', '.join(marks)})"
