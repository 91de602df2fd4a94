"""The look at the protocol that is shared for what is only told."""

from typing import Any

import pytest

from apps.clients.base import CallFailed
from apps.clients.protocols import ProtocolsClient
from apps.pool.look import Look


class Counting(ProtocolsClient):
    """Answers with the number of the question."""

    asked = 0

    def state(self, block: int | None = None) -> Any:
        self.asked += 1
        return self.asked


class Silent(ProtocolsClient):
    def state(self, block: int | None = None) -> Any:
        raise CallFailed("protocols did not answer.")


def test_look__again_within_its_time__shared_unless_now_is_asked_for() -> None:
    look, protocols = Look(3600.0), Counting("http://127.0.0.1:1", "")
    assert look.is_due()
    seen: list[Any] = [look.state(protocols), look.state(protocols), look.now(protocols), look.state(protocols)]
    assert seen == [1, 1, 2, 2]
    assert not look.is_due()


def test_look__older_than_its_time__taken_anew() -> None:
    look, protocols = Look(0.0), Counting("http://127.0.0.1:1", "")
    seen: list[Any] = [look.state(protocols), look.state(protocols)]
    assert seen == [1, 2]


def test_look__no_answer__due_as_before() -> None:
    look = Look(3600.0)
    with pytest.raises(CallFailed):
        look.state(Silent("http://127.0.0.1:1", ""))
    assert look.is_due()
