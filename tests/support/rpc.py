"""A tap on the line to a node: counts what passes, does something just before a call, or answers in the node's place."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests

from tests.support.rude_node import Reply, json_server


@dataclass
class Tap:
    """One HTTP request may carry many calls; `requests` holds the methods of each, in order."""

    url: str = ""
    requests: list[list[str]] = field(default_factory=list)
    before: dict[str, Callable[[], None]] = field(default_factory=dict)
    refuse: Callable[[dict[str, Any]], str | None] = field(default=lambda _call: None)

    def calls(self) -> list[str]:
        return [method for methods in self.requests for method in methods]


@contextmanager
def tapped(upstream: str) -> Iterator[Tap]:
    """A proxy before a node. `before` runs a function once, ahead of the first call of that method."""
    tap = Tap()
    session = requests.Session()

    def reply(body: bytes) -> Reply:
        asked = json.loads(body)
        listed = asked if isinstance(asked, list) else [asked]
        tap.requests.append([call["method"] for call in listed])
        for call in listed:
            action = tap.before.pop(call["method"], None)
            if action is not None:
                action()
        words = [tap.refuse(call) for call in listed]
        if not any(words):
            headers = {"Content-Type": "application/json"}
            return Reply(session.post(upstream, data=body, headers=headers, timeout=60).content)
        answers = [
            {"jsonrpc": "2.0", "id": call["id"], "error": {"code": -32005, "message": word or "not asked"}}
            for call, word in zip(listed, words, strict=True)
        ]
        return Reply(json.dumps(answers if isinstance(asked, list) else answers[0]).encode())

    with json_server(reply) as url:
        tap.url = url
        yield tap
