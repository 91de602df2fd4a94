"""A gate before each service of a house, through which all calls pass: the next one that has not failed yet does, in one of the
ways in which calls fail."""

import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import requests
from flask import Flask, Response, request

from apps.flow.hints import Publish
from apps.pool.context import make_context
from apps.pool.reads import PoolReads
from apps.pool.service import PoolService
from tests.support.flows import Flows
from tests.support.protocols import serving

SERVICES = ("ledger", "rewards", "protocols", "relayer")
HELD_SEC = 60.0
# What names one row among others in a path.
AN_ID = re.compile(r"0x[0-9a-f]+|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d+")


@dataclass
class Gate:
    """`kinds` of failure: `error`, nothing is done, 500; `lost`, it is done, 500; `cut`, it is done and the line breaks, and
    once more where the caller sends it again at once; `late`, it is done, and answered once the caller has given up; `silent`,
    nothing is done and nothing answered."""

    kind: str = ""
    known: frozenset[str] = frozenset()
    passed: Counter[str] = field(default_factory=Counter)
    struck: list[str] = field(default_factory=list)
    cut: str = ""
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def failing(self, kind: str, known: frozenset[str]) -> Iterator[None]:
        """Within the block the first call that is not among those known fails; `struck` tells of it."""
        self.kind, self.known = kind, known
        self.passed.clear()
        self.released.clear()
        before = len(self.struck)
        try:
            yield
        finally:
            self.kind = ""
            self.released.set()
        assert len(self.struck) <= before + 1

    def fails(self, service: str) -> str:
        """In which way this call fails, if it does. A call is known by where it goes, whatever row it names, and by how
        many like it came before in the block."""
        with self.lock:
            call = AN_ID.sub("#", f"{service} {request.method} {request.path}")
            if call == self.cut:
                self.cut = ""
                return "cut"
            self.passed[call] += 1
            point = f"{call} {self.passed[call]}"
            if not self.kind or point in self.known:
                return ""
            kind, self.kind = self.kind, ""
            self.struck.append(point)
            self.cut = call if kind == "cut" else ""
            return kind

    def pass_on(self, service: str, upstream: str) -> Response:
        kind = self.fails(service)
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
def gated(flows: Flows, timeout_sec: float, publish: Publish) -> Iterator[tuple[Flows, Gate]]:
    """The same house, whose pool calls all services through a gate, gives a call up after so long, and hints to `publish`."""
    gate = Gate()
    settings = flows.context.settings
    with ExitStack() as stack:
        # The few calls that may look at a whole history have a limit of their own, of a minute.
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr("apps.clients.protocols.RECONCILIATION_TIMEOUT_SEC", timeout_sec)
        patch.setattr("apps.clients.audits.AUDIT_TIMEOUT_SEC", timeout_sec)
        urls: dict[str, Any] = {f"{name}_url": stack.enter_context(serving(_door(gate, name, getattr(settings, f"{name}_url"))))
                for name in SERVICES}  # fmt: skip
        context = make_context(replace(settings, http_timeout_sec=timeout_sec, **urls), publish)
        yield replace(flows, context=context, service=PoolService(context), reads=PoolReads(context)), gate


def _door(gate: Gate, name: str, upstream: str) -> Flask:
    app = Flask(f"gate-{name}")

    def through(path: str) -> Response:
        return gate.pass_on(name, upstream)

    app.add_url_rule("/<path:path>", view_func=through, endpoint="through", methods=["GET", "POST"])
    return app
