"""The shop of `docs/flow.md`, its code run from that page, with a bank and a carrier that misbehave as a test says."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from sqlalchemy import Engine, func, select, text, update

from apps.common.database import Sessions, make_engine, make_sessions, transaction
from apps.common.settings import normalise_database_url
from apps.flow.lease import acquire
from apps.flow.runner import run

ROOT = Path(__file__).parents[2]


class Killed(BaseException):
    """The worker's process ends here."""


class Bank:
    """Takes each name once, as the engine asks of whatever takes an effect."""

    def __init__(self) -> None:
        self.charged: dict[str, int] = {}
        self.refuses = False
        self.fails: Exception | None = None
        self.kills = False
        self.before: Callable[[str], None] = lambda order_id: None
        self.refused: set[str] = set()

    def charge(self, name: str, customer: str, cents: int) -> bool:
        if self.fails is not None:
            raise self.fails
        self.before(name.split(":")[1])
        if self.refuses or name.split(":")[1] in self.refused:
            return False
        self.charged.setdefault(name, cents)
        if self.kills:
            raise Killed
        return True


class Carrier:
    """Sends each name once, when a courier is free."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.busy = False
        self.kills_at: int | None = None

    def send(self, name: str, customer: str) -> str | None:
        if self.busy:
            return None
        if name not in self.sent:
            self.sent.append(name)
        if self.kills_at == len(self.sent):
            raise Killed
        return f"parcel-{self.sent.index(name)}"


class Shop:
    """The page's code with a database, a bank and a carrier; what it hints at is kept."""

    def __init__(self, page: Any, sessions: Sessions) -> None:
        self.page = page
        self.sessions = sessions
        self.engine = cast(Engine, sessions.kw["bind"])
        self.bank, self.carrier = Bank(), Carrier()
        self.hints: list[tuple[str, str | None]] = []
        self.flow = page.OrderFlow(
            sessions, lambda task, row_id: self.hints.append((task, row_id)), self.bank, self.carrier
        )

    def place(self, *order_ids: str) -> None:
        with transaction(self.sessions) as session:
            for order_id in order_ids or ("o1",):
                session.add(
                    self.page.Order(id=order_id, status="placed", customer="ann", cents=500, next_run_at=func.now())
                )

    def statuses(self) -> list[str]:
        with transaction(self.sessions) as session:
            return list(session.scalars(select(self.page.Order.status).order_by(self.page.Order.id)))

    def work(self, *, early: bool = False) -> int:
        """One step of the order."""
        rows = acquire(self.sessions, self.page.Order, 60, row_id="o1", early=early)
        for row in rows:
            run(self.flow, row)
        return len(rows)

    def order(self) -> Any:
        with transaction(self.sessions) as session:
            return session.scalars(select(self.page.Order).where(self.page.Order.id == "o1")).one()

    def history(self) -> list[str]:
        with transaction(self.sessions) as session:
            return list(session.scalars(select(self.page.OrderEvent.type).order_by(self.page.OrderEvent.id)))

    def lease_runs_out(self) -> None:
        with transaction(self.sessions) as session:
            session.execute(update(self.page.Order).values(lease_until=func.now() - text("interval '1 s'")))


@contextmanager
def open_shop(database_url: str) -> Iterator[Shop]:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "flow.md").read_text(), re.DOTALL)
    page: dict[str, Any] = {"__name__": "shop_of_the_page"}
    exec(compile(code, "docs/flow.md", "exec"), page)  # the page's code is what is tested
    engine = make_engine(normalise_database_url(database_url))
    page["Base"].metadata.create_all(engine)
    yield Shop(SimpleNamespace(**page), make_sessions(engine))
    engine.dispose()
