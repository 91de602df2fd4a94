"""What the apps in this process refuse is what their operations declare: every test watches it, whatever it is about."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask, Response, request, request_finished

from apps.common.errors import InvalidJson, TooLarge, UnsupportedMediaType
from apps.common.refusals import ANYWHERE, refusals

# Of a body, wherever one is sent: also where none is taken.
_BODY = {(cls.status, cls.code) for cls in (InvalidJson, TooLarge, UnsupportedMediaType)}
_ANYWHERE = {(cls.status, cls.code) for cls in ANYWHERE}


@contextmanager
def watched() -> Iterator[list[str]]:
    """Collects each problem that an operation answered with and does not declare."""
    strays: list[str] = []

    def look(app: Flask, response: Response, **_: Any) -> None:
        if response.status_code < 400 or request.url_rule is None or request.routing_exception is not None:
            return
        if not hasattr(app.view_functions[request.url_rule.endpoint], "scope"):
            return  # an open page, or what a test added to an app
        problem = response.get_json(silent=True) or {}
        met = (response.status_code, str(problem.get("code")))
        told = {(cls.status, cls.code) for cls in refusals(app, request.url_rule, request.method)}
        if met not in told | _ANYWHERE | (_BODY if request.content_length else set()):
            strays.append(f"{request.method} {request.url_rule.rule} of {app.name} answered {met[0]} {met[1]}")

    with request_finished.connected_to(look):
        yield strays
