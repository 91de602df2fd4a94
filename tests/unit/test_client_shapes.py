"""What a client makes of an answer: the shape that was asked for, or nothing that may be believed."""

from typing import Any

import pytest

from apps.clients.base import CallFailed, Page, ServiceClient, pages
from apps.clients.ledger import LedgerClient
from apps.clients.shapes.common import Audit, AuditPage

AUDIT = {"id": "a", "ok": True, "differences": [], "created_at": "2026-01-31T12:00:00Z"}


class Answers(ServiceClient):
    """A service that answers every call with the same JSON."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__("http://127.0.0.1:1", "")
        self.answer = answer

    def _call(self, method: str, path: str, *, timeout: float | None = None, **kwargs: Any) -> dict[str, Any]:
        return self.answer


def test_read__a_newer_service_says_more__is_read_all_the_same() -> None:
    assert Answers({**AUDIT, "news": 1}).read(Audit, "/v1/audits/a").ok is True


@pytest.mark.parametrize(
    "answer", [{}, {**AUDIT, "ok": "perhaps"}, {**AUDIT, "created_at": None}, {**AUDIT, "differences": {}}]
)
def test_read__another_shape__failed_as_if_there_were_no_answer(answer: dict[str, Any]) -> None:
    client = Answers(answer)
    with pytest.raises(CallFailed, match="another shape"):
        client.read(Audit, "/v1/audits/a")
    with pytest.raises(CallFailed, match="another shape"):
        client.find(Audit, "/v1/audits/a")
    with pytest.raises(CallFailed, match="another shape"):
        client.write(Audit, "/v1/audits", {})


def test_post_batch__nothing_to_post__no_call() -> None:
    assert LedgerClient("http://127.0.0.1:1", "").post_batch([]).posted == 0  # no service listens there


def test_pages__three_of_them__each_is_asked_for_once_by_the_last_ones_cursor() -> None:
    known = {None: AuditPage([], "one"), "one": AuditPage([], "two"), "two": AuditPage([], None)}
    asked: list[str | None] = []

    def read(after: str | None) -> Page[Audit]:
        asked.append(after)
        return known[after]

    assert list(pages(read)) == [[], [], []]
    assert asked == [None, "one", "two"]
