"""docs/security.md: each claim names a test, and the test is there."""

import re
from pathlib import Path

from apps.common import auth, bodies, keys, rate_limits, settings, web_server
from apps.common.wire import MAX_LIMIT

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()


def test_page__every_test_that_it_names__exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    there = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    assert len(named) > 50
    assert sorted(named - there) == []


def test_page__the_limits_that_it_tells__are_those_of_the_code() -> None:
    told = [
        f"`rate_per_minute` ({keys.DEFAULT_RATE_PER_MINUTE:,} unless",
        f"w={rate_limits.WINDOW_SEC}",
        f"{auth.WRONG_KEYS_PER_MINUTE} a minute, then 429",
        f"| {web_server.MAX_HEADER_BYTES // 1024} KiB |",
        f"{bodies.MAX_BODY_BYTES // 1024**2} MiB, {bodies.MAX_CONTAINERS:,} objects",
        f"{bodies.MAX_VALUES:,} values, {bodies.MAX_DEPTH} deep",
        f"{MAX_LIMIT} items",
        f"{web_server.MAX_CONNECTIONS:,} and {web_server.MAX_HELD_BYTES // 1024**2} MiB",
        f"fewer than {settings.SHORTEST_KEY} characters",
    ]
    assert [text for text in told if text not in PAGE] == []
