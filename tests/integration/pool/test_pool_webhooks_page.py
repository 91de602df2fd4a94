"""The receiver of docs/webhooks.md, run from the page against the pool, through the client that a BFF in Python would use."""

import re
import threading
from collections.abc import Callable, Iterator
from http.server import HTTPServer
from pathlib import Path
from typing import Any

import pytest

from apps.clients.pool import PoolClient
from apps.pool import create_app
from apps.pool.context import make_context
from tests.support.pool import PoolHouse, pool_settings
from tests.support.protocols import KEY, serving
from tests.support.webhooks import LIFE, Hooks

PAGE = Path(__file__).parents[3] / "docs" / "webhooks.md"


@pytest.fixture
def receiver() -> Iterator[tuple[str, dict[str, Any]]]:
    """Where the page's receiver listens, and its names."""
    (source,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    names: dict[str, Any] = {}
    exec(compile(source, PAGE.name, "exec"), names)
    names["Receiver"].log_message = lambda *_: None
    with HTTPServer(("127.0.0.1", 0), names["Receiver"]) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/", names
        server.shutdown()
        thread.join()


def test_receiver_of_the_page__real_deliveries__takes_each_once_and_no_forged_one(
    make_database: Callable[[str], str], receiver: tuple[str, dict[str, Any]]
) -> None:
    url, names = receiver
    settings = pool_settings(make_database("pool"))
    hooks = Hooks(PoolHouse(make_context(settings, lambda *_: None)), create_app(settings).test_client())
    with serving(hooks.client.application) as pool_url:
        pool = PoolClient(pool_url, KEY)
        made = pool.create_webhook("hook-1", url)
        hook = made["id"]
        (request,) = hooks.lives(1)
        hooks.work()
        assert pool.deliveries(hook)["items"][-1]["attempts"][0]["answer_status"] == 401, "signed by another secret"
        names["SECRET"] = made["secret"]
        pool.test_webhook("test-1", hook)
        hooks.time_passes()
        hooks.work()
        assert names["seen"] == {request: 1 + len(LIFE)}
        pool.replay_webhook("replay-1", hook, after_sequence=0)
        hooks.work()
        pool.rotate_webhook_secret("rotation-1", hook)
        (more,) = hooks.requests(1)
        hooks.work()
        assert names["seen"] == {request: 1 + len(LIFE), more: 2 + len(LIFE)}, "the old secret is still in force"
        assert (pool.webhook(hook)["pending"], pool.webhooks()["items"][0]["dead_letters"]) == (0, 0)
        assert pool.retry_dead_letters(hook)["dead_letters"] == 0
        assert pool.change_webhook(hook, types=["request.failed"])["types"] == ["request.failed"]
        assert [pool.disable_webhook(hook)["status"], pool.enable_webhook(hook)["status"]] == ["disabled", "enabled"]
        assert pool.delete_webhook(hook)["status"] == "deleted"
        assert [item["sequence"] for item in pool.events(after=4, wait=1)["items"]] == [5, 6]
    body, secret = b'{"sequence": 9, "pool_request_id": "forged"}', made["secret"]
    for header in ("", "t=1", "v1=", "t=x,v1=y", "t=1,v1=" + "0" * 64, f"t={2**40},v1={'0' * 64}"):
        assert not names["is_genuine"](header, body), header
    assert secret == names["SECRET"]


def test_is_genuine__an_old_recording__refused(receiver: tuple[str, dict[str, Any]]) -> None:
    import time

    from apps.pool.webhooks.secrets import signature

    names = receiver[1]
    now = int(time.time())
    for age, genuine in ((0, True), (250, True), (400, False), (-400, False)):
        assert names["is_genuine"](signature([names["SECRET"]], now - age, b"{}"), b"{}") is genuine, age
