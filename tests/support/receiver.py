"""A receiver of webhooks, on a real port, that does with a delivery what a test says: takes it, refuses it, or is rude."""

import hashlib
import hmac
import json
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LONG_SEC = 120.0


@dataclass(frozen=True)
class Got:
    """A delivery as it came."""

    headers: Mapping[str, str]
    body: bytes
    path: str

    @property
    def sequence(self) -> int:
        return int(self.headers["X-Staking-Sequence"])

    @property
    def event(self) -> Any:
        return json.loads(self.body)


Answer = Callable[[Got], int | str]


@dataclass
class Receiver:
    """`answer` says what is done with each: a status; or ``close``, ``half``, ``hang``, ``drip``, ``huge``, ``noise`` or
    ``surplus``. `headers` go with every status. `order` is what happened: each sequence as it came, and as it was taken."""

    answer: Answer = lambda _got: 200
    headers: dict[str, str] = field(default_factory=dict)
    got: list[Got] = field(default_factory=list)
    taken: list[Got] = field(default_factory=list)
    order: list[tuple[str, str, int]] = field(default_factory=list)  # what happened, of which request, which sequence
    hangs: threading.Event = field(default_factory=threading.Event)  # somebody hangs
    let_go: threading.Event = field(default_factory=threading.Event)
    most_at_once: int = 0
    url: str = ""
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def came(self, got: Got) -> None:
        with self._lock:
            self.got.append(got)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            self.order.append(("came", got.event["pool_request_id"], got.sequence))

    def ends(self, got: Got, *, took: bool) -> None:
        with self._lock:
            self._at_once -= 1
            if took:
                self.taken.append(got)
                self.order.append(("taken", got.event["pool_request_id"], got.sequence))

    def sequences(self, of: Sequence[Got] | None = None) -> list[int]:
        return [one.sequence for one in (self.taken if of is None else of)]

    def by_request(self) -> dict[str, list[int]]:
        """What was taken of each request, repetitions left out."""
        found: dict[str, list[int]] = defaultdict(list)
        for one in self.taken:
            of = found[one.event["pool_request_id"]]
            if one.sequence not in of:
                of.append(one.sequence)
        return dict(found)

    def assert_in_order(self) -> None:
        """Nothing came before all that came earlier of its request had been taken."""
        expected = {request: sorted(sequences) for request, sequences in self.by_request().items()}
        assert self.by_request() == expected
        taken: dict[str, set[int]] = defaultdict(set)
        for what, request, sequence in self.order:
            if what == "taken":
                taken[request].add(sequence)
            else:
                earlier = {one for one in expected.get(request, []) if one < sequence}
                assert earlier <= taken[request], (request, sequence, taken[request])


@contextmanager
def receiving(answer: Answer = lambda _got: 200) -> Iterator[Receiver]:
    receiver = Receiver(answer)
    server = _Server(("127.0.0.1", 0), _handler_of(receiver))
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/events"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield receiver
    finally:
        receiver.let_go.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that has given up is what many tests are about."""


def _handler_of(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got = Got(dict(self.headers.items()), body, self.path)
            receiver.came(got)
            answer = receiver.answer(got)
            # Before the answer is sent, after which the next one may come.
            receiver.ends(got, took=isinstance(answer, int) and 200 <= answer < 300)
            if isinstance(answer, int):
                self._say(answer, b"" if answer == 204 else b"ok")
            else:
                getattr(self, f"_{answer}")()

        def log_message(self, *_: Any) -> None:
            pass

        def _say(self, status: int, body: bytes, length: int | None = None) -> None:
            self.send_response(status)
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            self.wfile.write(body)

        def _close(self) -> None:
            self.close_connection = True

        def _half(self) -> None:
            """A status at once, then an answer that breaks off in its middle."""
            self._say(200, b"o", 2)
            self.close_connection = True

        def _hang(self) -> None:
            receiver.hangs.set()
            assert receiver.let_go.wait(LONG_SEC)
            self.close_connection = True

        def _drip(self) -> None:
            """A status at once, then a body that comes byte by byte for as long as somebody listens."""
            self._say(200, b"", 1_000_000)
            receiver.hangs.set()
            while not receiver.let_go.wait(0.01):
                self.wfile.write(b".")

        def _huge(self) -> None:
            self._say(200, b"x" * 1_000_000)

        def _surplus(self) -> None:
            """An answer that has no body, and one all the same."""
            self._say(204, b"ok")

        def _noise(self) -> None:
            self.wfile.write(b"\x00\x01 SSH-2.0-OpenSSH\r\n\r\n")
            self.close_connection = True

    return Handler


def counted(receiver: Receiver) -> Counter[int]:
    """How often each event came."""
    return Counter(one.sequence for one in receiver.got)


def verified(got: Got, secret: str) -> int:
    """How many of a delivery's signatures are of this secret: the few lines of a receiver that knows nothing of this code."""
    parts = [part.split("=", 1) for part in got.headers["X-Staking-Signature"].split(",")]
    (time,) = (value for name, value in parts if name == "t")
    expected = hmac.new(secret.encode(), time.encode() + b"." + got.body, hashlib.sha256).hexdigest()
    assert abs(datetime.now(UTC).timestamp() - int(time)) < 300
    return sum(name == "v1" and hmac.compare_digest(value, expected) for name, value in parts)
