"""A missing tool is named, with the way to get it; secrets of a home are its owner's alone."""

import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from apps.local import tools
from apps.local.cli import main
from apps.local.errors import LocalError, MissingTool
from apps.local.home import Home
from apps.local.programs import Programs


def test_anvil__not_installed__named_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tools, "DEVNET", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("ANVIL_BIN", raising=False)
    with pytest.raises(MissingTool) as missing:
        tools.anvil()
    assert "anvil, the local chain, is missing." in str(missing.value)
    assert "make setup" in str(missing.value)
    assert "@foundry-rs/anvil" in str(missing.value)


def test_up__tool_missing__plain_message_exit_1_and_nothing_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STAKING_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ANVIL_BIN", str(tmp_path / "absent"))
    finished = CliRunner().invoke(main, ["up", "--detach"])
    assert finished.exit_code == 1
    assert f"ANVIL_BIN={tmp_path / 'absent'} is not a program." in finished.output
    assert "Traceback" not in finished.output
    assert not (tmp_path / "home" / "run" / "supervisord.pid").exists()


@pytest.mark.parametrize("command", [["status", "--json"], ["status"], ["oracle", "finalize"]])
def test_commands__no_stack_runs__say_how_to_start_it(
    command: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STAKING_HOME", str(tmp_path))
    finished = CliRunner().invoke(main, command)
    assert finished.exit_code == 1
    assert "staking up --detach" in finished.output


def test_home__made__secrets_differ_and_only_the_owner_reads_them(tmp_path: Path) -> None:
    one, two = Home(tmp_path / "one"), Home(tmp_path / "two")
    first, second = one.create(separate_custody=False), two.create(separate_custody=True)
    assert stat.S_IMODE((tmp_path / "one" / "stack.json").stat().st_mode) == 0o600
    assert first.operator_key != second.operator_key
    assert first.internal_api_key != second.internal_api_key
    assert (first.custody == first.operator, second.custody == second.operator) == (True, False)
    assert one.load() == first


def test_home__file_broken__said_with_the_remedy(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create(separate_custody=False)
    (tmp_path / "stack.json").write_text("{")
    with pytest.raises(LocalError, match="cannot be read"):
        home.load()


def test_home__two_commands_at_once__the_second_is_refused(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with home.locked(), pytest.raises(LocalError, match="Another staking command"), home.locked():
        pass


def test_programs__environment__keys_reach_the_relayer_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SIGNER_KEYS", "0x" + "11" * 32)
    home = Home(tmp_path)
    state = home.create(separate_custody=True)
    names = ("postgres", "valkey", "anvil", "ledger", "protocols", "rewards", "pool", "relayer", "flower", "supervisor")
    state.ports = {name: 20_000 + number for number, name in enumerate(names)}
    holders = set()
    for program in Programs(home, state).all():
        values = " ".join(program.environment().values())
        if state.operator_key in values or state.custody_key in values or "SIGNER_KEYS" in program.environment():
            holders.add(program.name)
        assert state.operator_key not in " ".join(program.command())
        assert "0x" + "11" * 32 not in values
    assert holders == {"relayer", "relayer-worker"}
    assert os.environ["SIGNER_KEYS"]
