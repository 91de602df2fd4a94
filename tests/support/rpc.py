"""A tap on the line to a node: counts what passes, does something just before a call, or answers in the node's place."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests


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

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked = json.loads(body)
            listed = asked if isinstance(asked, list) else [asked]
            tap.requests.append([call["method"] for call in listed])
            for call in listed:
                action = tap.before.pop(call["method"], None)
                if action is not None:
                    action()
            content = self._answer(body, asked, listed)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _answer(self, body: bytes, asked: Any, listed: list[Any]) -> bytes:
            words = [tap.refuse(call) for call in listed]
            if not any(words):
                headers = {"Content-Type": "application/json"}
                return session.post(upstream, data=body, headers=headers, timeout=60).content
            answers = [
                {"jsonrpc": "2.0", "id": call["id"], "error": {"code": -32005, "message": word or "not asked"}}
                for call, word in zip(listed, words, strict=True)
            ]
            return json.dumps(answers if isinstance(asked, list) else answers[0]).encode()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    tap.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield tap
    finally:
        server.shutdown()
        server.server_close()
