"""How Celery is used here: messages are wake-up hints, so delivery is made quick and bounded rather than certain.

The truth is in Postgres and a sweep finds whatever a lost message left behind. Both Celery apps (pool and relayer) take
these settings; each has its reason beside it.
"""

import threading
from contextlib import suppress

import structlog
from celery import Celery
from kombu import Connection
from redis import RedisError

from apps.common.doorbell import doorbell_of

log = structlog.get_logger(__name__)

REQUEST_ID_HEADER = "request_id"

# A task that runs longer than the visibility timeout is delivered a second time while it still runs. Hard limit below
# it, and no row's lease is longer; the lease's token makes a second copy harmless.
SOFT_TIME_LIMIT_SEC = 90
TIME_LIMIT_SEC = 110
VISIBILITY_TIMEOUT_SEC = 120


def delivery_settings(broker_url: str) -> dict[str, object]:
    """Settings of both Celery apps."""
    return {
        "broker_url": broker_url,
        "broker_transport_options": transport_options(),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # never give up on a broker that is restarting
        "task_serializer": "json",
        "accept_content": ["json"],  # an open broker must not become code execution
        "task_ignore_result": True,  # results live in rows; a result backend is a second way to fail
        "task_acks_late": True,
        "task_reject_on_worker_lost": False,  # True would redeliver a deadly message without end; the sweep has a cap
        "task_acks_on_failure": True,
        "task_acks_on_timeout": True,
        "worker_prefetch_multiplier": 1,  # a prefetched message's visibility clock runs while it waits
        "task_soft_time_limit": SOFT_TIME_LIMIT_SEC,
        "task_time_limit": TIME_LIMIT_SEC,
        "task_publish_retry_policy": {"max_retries": 3, "interval_start": 0, "interval_step": 0.2, "interval_max": 1},
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_max_tasks_per_child": 10_000,
        "worker_send_task_events": True,  # Flower sees nothing otherwise
        "task_send_sent_event": True,
        "worker_hijack_root_logger": False,
        "beat_max_loop_interval": 1,
        "timezone": "UTC",
    }


def transport_options() -> dict[str, object]:
    """Without these timeouts a publish into a frozen Redis never returns, and a lost worker's message waits 100 s."""
    return {
        "visibility_timeout": VISIBILITY_TIMEOUT_SEC,
        "socket_timeout": 2,
        "socket_connect_timeout": 1,
        "socket_keepalive": True,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "max_retries": 0,
    }


def broker_answers(broker_url: str) -> bool:
    """Health check: one connection to the broker, given up after a second."""
    with Connection(broker_url, transport_options=transport_options(), connect_timeout=1) as connection:
        connection.ensure_connection(max_retries=1, timeout=1)
    return True


class HintPublisher:
    """Publishes hints by task name, quickly or not at all: a failed publish is logged, and the sweep makes up for
    it. A hint that is under way already is not sent again (`apps.common.doorbell`)."""

    def __init__(self, broker_url: str) -> None:
        self._broker_url = broker_url
        self._app: Celery | None = None
        self._lock = threading.Lock()
        self.failures = 0

    def send(self, task: str, row_id: str | None = None, *, queue: str) -> None:
        """Send `task` with at most one id to `queue`, and with the id of the HTTP request or task that sends it, for the
        log (`apps.common.hint_task`); never raises."""
        request_id = structlog.contextvars.get_contextvars().get("request_id")
        headers = {REQUEST_ID_HEADER: request_id} if request_id else None
        rung = False
        try:
            rung = doorbell_of(self._broker_url).ring(task, row_id)
            if not rung:
                return
            self._celery().send_task(
                task, args=[row_id] if row_id else [], queue=queue, headers=headers, retry=False, ignore_result=True
            )
        except Exception as error:  # noqa: BLE001  # whatever is wrong with the broker, the money step has committed
            self.failures += 1
            log.warning("hint_not_published", task=task, kind=type(error).__name__)
            if rung:
                self._take_back(task, row_id)

    def _take_back(self, task: str, row_id: str | None) -> None:
        """The mark of a hint that was not sent would keep the next ones back until it runs out. Where the message had
        arrived all the same, or another hint has rung meanwhile, a second one is at worst an early look."""
        with suppress(RedisError):
            doorbell_of(self._broker_url).answer(task, row_id)

    def _celery(self) -> Celery:
        with self._lock:
            if self._app is None:
                self._app = Celery("hints", set_as_current=False)
                self._app.conf.update(
                    broker_url=self._broker_url, broker_transport_options=transport_options(), task_ignore_result=True
                )
            return self._app
