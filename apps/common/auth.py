"""``X-Internal-Key``: who may call. Compared in constant time; several keys are accepted while one is rotated out."""

import hmac
from collections.abc import Callable, Sequence

from flask import Flask, request

from apps.common.errors import Unauthorized

HEADER = "X-Internal-Key"
OPEN_PATHS = ("/status/", "/healthz", "/metrics", "/openapi.json", "/docs", "/favicon.ico")


def key_matches(given: str | None, accepted: Sequence[str]) -> bool:
    """Compare with every accepted key, always all of them, so that timing tells nothing."""
    offered = (given or "").encode()
    matches = [hmac.compare_digest(offered, key.encode()) for key in accepted]
    return any(matches) and bool(given)


def is_open(path: str) -> bool:
    """Whether a page needs no key: status, metrics, documentation."""
    return any(path == page or path.startswith(page.rstrip("/") + "/") for page in OPEN_PATHS)


def require_internal_key(app: Flask, accepted: Sequence[str], *, allow: Callable[[], bool] | None = None) -> None:
    """Refuse every request without an accepted key, but for status, metrics and documentation pages.

    `allow` is asked first; the relayer uses it to serve loopback callers when no key is set.
    """

    @app.before_request
    def check_key() -> None:
        if is_open(request.path):
            return
        if allow is not None and allow():
            return
        if not key_matches(request.headers.get(HEADER), accepted):
            raise Unauthorized
