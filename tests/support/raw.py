"""A client's answers as the JSON that goes over the wire: what a caller of another make would see."""

import dataclasses
from typing import Any

from apps.clients.base import ServiceClient
from apps.common.shapes import dump


class _Raw:
    def __init__(self, client: ServiceClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        return lambda *given, **named: _json(method(*given, **named))


def raw(client: ServiceClient) -> Any:
    """The same client, whose methods answer with JSON in place of shapes."""
    return _Raw(client)


def _json(answer: Any) -> Any:
    if isinstance(answer, list):
        return [_json(item) for item in answer]
    return dump(answer) if dataclasses.is_dataclass(answer) else answer
