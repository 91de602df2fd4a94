"""Ports of the local stack: the standard one, a free one, or exactly the one asked for."""

import fcntl
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from apps.local.errors import LocalError, PortInUse
from apps.local.ports import any_free_port, choose_ports, one_start_at_a_time


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


def test_ports__remembered_one_taken__another_is_chosen_and_said(taken: int) -> None:
    chosen, notes = choose_ports(["pool"], {"pool": taken})
    assert chosen["pool"] != taken
    assert notes == [
        f"port {taken} is in use: pool listens on {chosen['pool']} instead (choose with STAKING_PORT_POOL)"
    ]


def test_ports__remembered_one_free__kept_silently() -> None:
    port = any_free_port()
    assert choose_ports(["pool"], {"pool": port}) == ({"pool": port}, [])


def test_ports__asked_for_and_taken__refused_with_name_and_remedy(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAKING_PORT_POOL", str(taken))
    with pytest.raises(PortInUse) as refused:
        choose_ports(["ledger", "pool"], {})
    assert str(refused.value) == (
        f"Port {taken}, asked for pool by STAKING_PORT_POOL, is in use.\n"
        "  Stop the program that listens there, or unset STAKING_PORT_POOL and a free port is chosen."
    )


@pytest.mark.parametrize("text", ["0", "65536", "http", "-1"])
def test_ports__asked_for_and_no_port__refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAKING_PORT_POOL", text)
    with pytest.raises(LocalError, match=f"STAKING_PORT_POOL={text} is not a port"):
        choose_ports(["pool"], {})


def test_ports__two_parts_remember_the_same__they_get_two() -> None:
    port = any_free_port()
    chosen, _ = choose_ports(["pool", "ledger"], {"pool": port, "ledger": port})
    assert len(set(chosen.values())) == 2


def test_ports__a_stack_is_starting__another_start_finds_the_lock_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with one_start_at_a_time():
        (path,) = tmp_path.iterdir()
        with path.open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
