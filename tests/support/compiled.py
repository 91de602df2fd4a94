"""What SQLAlchemy compiled for one engine serves all others of this process.

Every test makes engines of its own, and on each of them the services' few hundred statements would be compiled again: a
fifth of what a test of the relayer costs. All engines here speak to PostgreSQL through the same driver.
"""

from typing import Any

from sqlalchemy import Engine
from sqlalchemy.util import LRUCache

# More than all services' statements together.
STATEMENTS = 5_000


class Compiled(LRUCache[Any, Any]):
    """Keeps compiled statements by everything that SQLAlchemy tells them apart by, but for the dialect object."""

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(_of_any_engine(key), default)

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(_of_any_engine(key), value)


def share_compiled_statements() -> None:
    """Have every engine that is made from now on use one cache."""
    shared = Compiled(STATEMENTS)
    make = Engine.__init__

    def make_sharing(self: Engine, *arguments: Any, **options: Any) -> None:
        make(self, *arguments, **options)
        self.update_execution_options(compiled_cache=shared)

    Engine.__init__ = make_sharing  # type: ignore[method-assign]


def _of_any_engine(key: Any) -> Any:
    dialect, *rest = key
    return (type(dialect), *rest)
