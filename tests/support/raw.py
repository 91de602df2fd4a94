"""A client's answers as the very JSON that came over the wire: what a caller of another make would see."""

import copy
import dataclasses
from typing import Any

from apps.clients.base import ServiceClient
from apps.common.shapes import dump


def raw(client: ServiceClient) -> Any:
    """The same client, whose methods answer with the body as it came in place of a shape."""
    return _Raw(client)


class _Raw:
    def __init__(self, client: ServiceClient) -> None:
        self._client = copy.copy(client)
        vars(self._client)["_shaped"] = lambda shape, path, body: _Body(body)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        return lambda *given, **named: _plain(method(*given, **named))


class _Body(dict[str, Any]):
    """A body whose list is found where a page's is."""

    @property
    def items(self) -> Any:
        return self["items"]


def _plain(answer: Any) -> Any:
    if isinstance(answer, _Body):
        return dict(answer)
    return dump(answer) if dataclasses.is_dataclass(answer) else answer
