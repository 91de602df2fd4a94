"""A proxy in front of a real node that loses, repeats, delays and falsifies what it is told to."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests

from tests.support.rude_node import Reply, json_server

SEND = "eth_sendRawTransaction"
RECEIPT = "eth_getTransactionReceipt"
OTHER_HASH = "0x" + "ab" * 32

# What becomes of a whole HTTP call that holds the method: `refuse` does not reach the node, the others do.
WHOLE = ("refuse", "lose", "gateway", "hang")
# What becomes of the one answer, delivered all the same: `duplicate` delivers twice, `stale` repeats the first answer
# that was ever given to the same question.
SINGLE = ("error", "null", "wrong_hash", "duplicate", "stale")


@dataclass
class Fault:
    kind: str
    method: str
    times: int = 1
    text: str = ""


@dataclass
class Chaos:
    """`faults` are used up in order; `before` is called with each method before it is delivered. What `instead` makes
    up, a result or an error, is answered without delivering."""

    upstream: str
    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    before: Callable[[str], None] = lambda _method: None
    instead: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda _item: None
    released: threading.Event = field(default_factory=threading.Event)
    used: list[str] = field(default_factory=list)
    _first: dict[str, Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, kind: str, method: str = SEND, times: int = 1, text: str = "") -> None:
        with self._lock:
            self.faults.append(Fault(kind, method, times, text))

    def calm(self) -> None:
        with self._lock:
            self.faults.clear()
        self.released.set()

    def forget(self) -> None:
        """Begin anew: nothing was ever answered."""
        self._first.clear()
        self.used.clear()
        self.released.clear()

    def handle(self, asked: Any) -> tuple[str | None, Any]:
        """The fault of the whole call, or None, and the answer."""
        items = asked if isinstance(asked, list) else [asked]
        for item in items:
            self.before(item["method"])
        faults = [self._take(item["method"]) for item in items]
        whole = next((fault.kind for fault in faults if fault and fault.kind in WHOLE), None)
        if whole == "refuse":
            return whole, None
        answers = [self._answer(item, fault) for item, fault in zip(items, faults, strict=True)]
        return whole, answers if isinstance(asked, list) else answers[0]

    def _take(self, method: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.method == method and fault.times != 0:
                    fault.times -= 1
                    self.used.append(fault.kind)
                    return fault
        return None

    def _answer(self, item: dict[str, Any], fault: Fault | None) -> Any:
        kind = fault.kind if fault else ""
        name = json.dumps([item["method"], item["params"]])
        answer = self._deliver(item)
        self._first.setdefault(name, answer)
        if kind == "duplicate":
            answer = self._deliver(item)
        head = {"jsonrpc": "2.0", "id": item["id"]}
        if kind == "error" and fault is not None:
            return {**head, "error": {"code": -32000, "message": fault.text}}
        if kind == "null":
            return {**head, "result": None}
        if kind == "wrong_hash":
            return {**head, "result": OTHER_HASH}
        return {**self._first[name], "id": item["id"]} if kind == "stale" else answer

    def _deliver(self, item: dict[str, Any]) -> Any:
        made_up = self.instead(item)
        if made_up is not None:
            return {"jsonrpc": "2.0", "id": item["id"], **made_up}
        return requests.post(self.upstream, json=item, timeout=10).json()


@contextmanager
def chaos_proxy(upstream: str) -> Iterator[Chaos]:
    """Serve until the block ends; without faults it only passes on."""
    chaos = Chaos(upstream)

    def reply(raw: bytes) -> Reply:
        whole, answer = chaos.handle(json.loads(raw))
        if whole == "hang":
            chaos.released.wait(60)
        cut = 0 if whole in {"lose", "hang"} else None
        return Reply(json.dumps(answer).encode(), 502 if whole else 200, cut=cut)

    with json_server(reply) as url:
        chaos.url = url
        try:
            yield chaos
        finally:
            chaos.released.set()
