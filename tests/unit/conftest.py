"""A unit test needs no server, and cannot reach one: what opens a connection fails, and says so."""

import socket
from typing import Any

import pytest


class SocketOpened(AssertionError):
    pass


@pytest.fixture(autouse=True)
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: Any, **_options: Any) -> None:
        raise SocketOpened("a unit test opened a connection; a test that needs a server belongs to tests/integration")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
