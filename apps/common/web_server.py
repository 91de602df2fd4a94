"""The web server of every service: one process, 8 threads, and an event loop that reads whole requests first.

A thread is taken when a request is complete, and given back when its answer is made. So a caller that sends slowly, sends
half a request, sends nothing or does not read its answer holds a connection for a while, never a thread. How many
connections and bytes such callers may hold is limited here.
Waitress does the HTTP; this module adds limits that it lacks: on the time of a whole request, on answers that are not
read, and on connections and bytes held. What is refused is answered with a problem document like every other refusal.
"""

import logging
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar
from wsgiref.types import WSGIApplication

import structlog
from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

from apps.common.bodies import MAX_BODY_BYTES
from apps.common.errors import RequestTimeout
from apps.common.settings import SettingsError
from apps.common.web_channel import Channel

THREADS = 8
MAX_HEADER_BYTES = 32 * 1024
MAX_CONNECTIONS = 1_000
# Of requests that are not complete yet; the connections that have waited longest are closed when it is more.
MAX_HELD_BYTES = 256 * 1024 * 1024
# Below what the local stack and Compose wait before they kill.
STOP_SEC = 12.0
ACCEPTED_AT_ONCE = 64

# How often the log says how many connections were closed: a line for each would flood it under attack.
TELL_SEC = 60.0

Settings = TypeVar("Settings")

log = structlog.get_logger(__name__)


def run_service(load_settings: Callable[[], Settings], create_app: Callable[[Settings], WSGIApplication]) -> None:
    """What ``python -m`` of a service does: read its settings and serve until a signal ends it."""
    try:
        settings: Any = load_settings()
        app = create_app(settings)
    except SettingsError as error:
        sys.exit(str(error))
    server = make_server(app, settings.http_bind_address, settings.http_port)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.stop_on_signal)
    server.run()


def make_server(app: WSGIApplication, host: str, port: int) -> "Server":
    """A server that listens already; `run` serves."""
    # Waitress would log a line for each connection, callers without a key included.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    adjustments = Adjustments(
        host=host,
        port=port,
        threads=THREADS,
        ident=None,
        # Left to the services: the relayer serves loopback callers without a key only where nothing was forwarded.
        clear_untrusted_proxy_headers=False,
        max_request_header_size=MAX_HEADER_BYTES,
        max_request_body_size=MAX_BODY_BYTES + 1,
        connection_limit=sys.maxsize,
        channel_timeout=sys.maxsize,
        cleanup_interval=sys.maxsize,
        recv_bytes=65_536,
        log_socket_errors=False,
        server_name="localhost",
    )
    dispatcher = ThreadedTaskDispatcher()
    dispatcher.set_thread_count(THREADS)
    return Server(app, {}, dispatcher=dispatcher, adj=adjustments, sockinfo=adjustments.listen[0])


class Server(TcpWSGIServer):  # type: ignore[misc]  # waitress has no types
    """Everything here runs in the event loop's thread, but for `stop`."""

    accepting: bool = False
    channel_class = Channel

    def __init__(self, *args: Any, **options: Any) -> None:
        self._stopping: float | None = None
        self._looked_after = self._told = 0.0
        self._thrown_out: Counter[str] = Counter()
        self.fresh_bytes = 0  # read since the held bytes were last summed up
        super().__init__(*args, **options)

    def run(self) -> None:
        """Serve until `stop`; then let what is under way end, for as long as there is time."""
        while self._stopping is None or self._still_busy(self._stopping):
            self._look_after(time.monotonic())
            # Between two rounds of events: were a socket closed during one, a new connection could be given its number
            # and receive the event that was meant for the old one.
            if len(self.active_channels) >= MAX_CONNECTIONS:
                self._close_longest_waiting(MAX_CONNECTIONS // 20)
            wasyncore.loop(timeout=1.0, use_poll=True, map=self._map, count=1)
        self.task_dispatcher.shutdown(timeout=1)
        wasyncore.close_all(self._map, ignore_all=True)

    def stop(self) -> None:
        """Have `run` end; from any thread."""
        self._stopping = time.monotonic()
        self.pull_trigger()

    def stop_on_signal(self, number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second signal ends the process at once
        self.stop()

    def readable(self) -> bool:
        """Whether the next connection is taken: always, unless every one there is has a request under way."""
        return self.accepting and len(self.active_channels) < MAX_CONNECTIONS

    def handle_accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            known = len(self.active_channels)
            if known < MAX_CONNECTIONS:
                super().handle_accept()
            if len(self.active_channels) <= known:
                return

    def took(self, number: int) -> None:
        """Bytes of an unfinished request were read; keep what all of them hold together within bounds."""
        self.fresh_bytes += number
        if self.fresh_bytes < MAX_BODY_BYTES:
            return
        self.fresh_bytes = 0
        while sum(channel.held for channel in self._channels()) > MAX_HELD_BYTES:
            if not self._close_longest_waiting(1, holding=True):
                return

    def maintenance(self, now: float) -> None:
        """Waitress' own, by idleness alone; see `_look_after`."""

    def _look_after(self, now: float) -> None:
        """Once a second: close what has had its time."""
        if now - self._looked_after < 1.0:
            return
        self._looked_after = now
        for channel in self._channels():
            if channel.overdue(now):
                self._thrown_out[channel.state()] += 1
                channel.end(RequestTimeout() if channel.half_sent() else None)
        if self._thrown_out.total() > self._thrown_out["kept"] and now - self._told >= TELL_SEC:
            self._told = now
            log.warning("callers_thrown_out", open=len(self.active_channels), **self._thrown_out)
            self._thrown_out.clear()

    def _close_longest_waiting(self, number: int, *, holding: bool = False) -> int:
        """Close connections that wait for their caller, those with unfinished requests before idle kept ones."""
        idle = [channel for channel in self._channels() if channel.idle() and (channel.held or not holding)]
        for channel in sorted(idle, key=Channel.place_in_line)[:number]:
            self._thrown_out["no_room"] += 1
            channel.end()
        return min(number, len(idle))

    def _still_busy(self, since: float) -> bool:
        if self.accepting:
            self.accepting = False
            self.del_channel()
            self.socket.close()
        for channel in self._channels():
            if channel.at_rest():
                channel.end()
        return bool(self.active_channels) and time.monotonic() - since < STOP_SEC

    def _channels(self) -> list[Channel]:
        return list(self.active_channels.values())
