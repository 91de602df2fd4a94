"""A gate before each service of a house, through which all calls pass: the n-th from now fails, in one of the ways calls fail."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import requests
from flask import Flask, Response, request

from apps.pool.context import make_context
from apps.pool.reads import PoolReads
from apps.pool.service import PoolService
from tests.support.flows import Flows
from tests.support.protocols import serving

SERVICES = ("ledger", "rewards", "protocols", "relayer")
HELD_SEC = 60.0


@dataclass
class Gate:
    """`kinds` of failure: `error`, nothing is done, 500; `lost`, it is done, 500; `cut`, it is done and the line breaks;
    `late`, it is done, and answered once the caller has given up; `silent`, nothing is done and nothing answered."""

    kind: str = ""
    left: int = 0
    struck: list[str] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def failing(self, kind: str, number: int) -> Iterator[None]:
        """Within the block the `number`-th call, from 1, fails."""
        self.kind, self.left = kind, number
        self.released.clear()
        before = len(self.struck)
        try:
            yield
        finally:
            self.left = 0
            self.released.set()
        assert len(self.struck) <= before + 1

    def pass_on(self, service: str, upstream: str) -> Response:
        with self.lock:
            self.left -= 1
            kind = self.kind if self.left == 0 else ""
            if kind:
                self.struck.append(f"{service} {request.method} {request.path}")
        if kind == "error":
            return Response("{}", 500)
        if kind == "silent":
            self.released.wait(HELD_SEC)
            return Response("{}", 504)
        answer = requests.request(
            request.method,
            upstream + request.environ["REQUEST_URI"],
            data=request.get_data(),
            headers={name: value for name, value in request.headers if name != "Host"},
            timeout=HELD_SEC,
        )
        if kind == "cut":
            request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        if kind == "late":
            self.released.wait(HELD_SEC)
        if kind == "lost":
            return Response("{}", 500)
        return Response(answer.content, answer.status_code, content_type=answer.headers["Content-Type"])


@contextmanager
def gated(flows: Flows, timeout_sec: float = 30.0) -> Iterator[tuple[Flows, Gate]]:
    """The same house, whose pool calls all services through a gate, and gives a call up after so long."""
    gate = Gate()
    settings = flows.context.settings
    with ExitStack() as stack:
        urls: dict[str, Any] = {f"{name}_url": stack.enter_context(serving(_door(gate, name, getattr(settings, f"{name}_url"))))
                for name in SERVICES}  # fmt: skip
        context = make_context(replace(settings, http_timeout_sec=timeout_sec, **urls), flows.context.publish)
        yield replace(flows, context=context, service=PoolService(context), reads=PoolReads(context)), gate


def _door(gate: Gate, name: str, upstream: str) -> Flask:
    app = Flask(f"gate-{name}")

    def through(path: str) -> Response:
        return gate.pass_on(name, upstream)

    app.add_url_rule("/<path:path>", view_func=through, endpoint="through", methods=["GET", "POST"])
    return app
