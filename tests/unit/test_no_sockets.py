"""The guard of this tier's `conftest.py` catches every way to open a connection from Python."""

import socket
from collections.abc import Callable

import pytest


def _connect() -> None:
    with socket.socket() as opened:
        opened.connect(("127.0.0.1", 9))


def _connect_ex() -> object:
    with socket.socket() as opened:
        return opened.connect_ex(("127.0.0.1", 9))


@pytest.mark.parametrize(
    "way",
    [
        _connect,
        _connect_ex,
        lambda: socket.create_connection(("127.0.0.1", 9)),
    ],
    ids=["connect", "connect_ex", "create_connection"],
)
def test_unit_test__connection_opened__fails_by_name(way: Callable[[], object]) -> None:
    with pytest.raises(AssertionError, match="belongs to tests/integration"):
        way()
