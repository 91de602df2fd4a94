"""How an operation is called."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from apps.common.wire import format_time

if TYPE_CHECKING:
    from tests.support.endpoints.world import World

Json = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """One call: ids for the path, a query and a body."""

    body: Json | None = None
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)


# Prepares in the world what the operation acts upon, under a name that nobody else uses, and says how it is called.
Prepare = Callable[["World", str], Call]


@dataclass(frozen=True)
class Operation:
    """A line of a table.

    `again`: codes that the same call may be refused with once it was done, for those that take no message_id. `each`:
    tables that grow with every call, whether it has an effect or not, such as an audit's. `otherwise`: states in which it
    answers with another status.
    """

    prepare: Prepare
    again: frozenset[str] = frozenset()
    each: frozenset[str] = frozenset()
    otherwise: tuple[Prepare, ...] = ()

    @property
    def prepared(self) -> tuple[Prepare, ...]:
        return (self.prepare, *self.otherwise)


Table = Mapping[str, Operation]


def reads(path: Mapping[str, str] | None = None, **query: str) -> Operation:
    """A read, or a write of which nothing has to be prepared and that takes no body."""
    call = Call(path=path or {}, query=query)
    return Operation(lambda _world, _name: call)


def writes(prepare: Prepare, *again: str) -> Operation:
    """A write; see `Operation`."""
    return Operation(prepare, again=frozenset(again))


def found(prepare: Prepare) -> Operation:
    """A read of something that is looked up first."""
    return Operation(prepare)


def span(**path: str) -> Operation:
    """A read of what happened since the house was built."""
    return Operation(lambda world, _name: Call(path=path, query={"from": format_time(world.began)}))


def body(**fields: Any) -> Operation:
    """A write that acts upon nothing prepared: its body, in which ``{name}`` stands for the name."""

    def prepare(_world: "World", name: str) -> Call:
        return Call(body=_named(fields, name))

    return Operation(prepare)


def _named(value: Any, name: str) -> Any:
    if isinstance(value, str):
        return value.replace("{name}", name)
    if isinstance(value, list):
        return [_named(item, name) for item in value]
    if isinstance(value, dict):
        return {key: _named(item, name) for key, item in value.items()}
    return value
