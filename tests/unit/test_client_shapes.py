"""What a client makes of an answer: the shape that was asked for, or nothing that may be believed."""

from typing import Any

import pytest

from apps.clients.base import CallFailed, Page, ServiceClient, pages
from apps.clients.ledger import LedgerClient
from apps.clients.shapes.common import Audit, AuditPage
from apps.clients.shapes.relayer import Transaction

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


def test_transaction__of_a_relayer_that_does_not_tell_what_passes__is_read_all_the_same() -> None:
    named = dict.fromkeys(("purpose", "reason", "deadline", "nonce", "tx_hash", "block_number", "block_hash"))
    told = {"message_id": "m", "status": "queued", "from": "0x1", "to": "0x2", "data": "0x", "value_wei": "1"}
    counted = {"gas_limit": 1, "confirmations": 0, "observed_block": None, "gas_cost_wei": None, "revert": None}
    times = dict.fromkeys(("created_at", "updated_at"), AUDIT["created_at"])
    found = Answers({**named, **told, **counted, **times, "attempts": []}).read(Transaction, "/v1/transactions/m")
    assert (found.value_wei, found.passing) == (1, None)


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
