"""The chain's file holds no more hashes than a contract can ask for, and all else of the chain."""

import json
from pathlib import Path

import pytest

from apps.local import chain_file


@pytest.fixture(autouse=True)
def _every_file_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_file, "SMALL_BYTES", 0)


def test_trim__many_hashes__the_newest_256_stay_and_all_else(tmp_path: Path) -> None:
    hashes = {hex(number): f"0x{number:064x}" for number in range(1000)}
    state = {"accounts": {"0xa": {"balance": "0x1"}}, "storage": {}, "block_hashes": hashes}
    chain = {
        "blocks": [1, 2],
        "historical_states": [["0xb", state], ["0xc", {**state, "block_hashes": {"0x7": "0x8"}}]],
    }
    file = tmp_path / "anvil.json"
    file.write_text(json.dumps(chain))
    chain_file.trim(file)
    kept = {hex(number): hashes[hex(number)] for number in range(744, 1000)}
    state["block_hashes"] = kept
    assert json.loads(file.read_text()) == chain
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"historical_states": [1]}', '{"historical_states": null}'])
def test_trim__file_of_another_kind__left_as_it_is(text: str, tmp_path: Path) -> None:
    file = tmp_path / "anvil.json"
    file.write_text(text)
    chain_file.trim(file)
    assert file.read_text() == text


def test_trim__no_file__nothing_made(tmp_path: Path) -> None:
    chain_file.trim(tmp_path / "anvil.json")
    assert list(tmp_path.iterdir()) == []
