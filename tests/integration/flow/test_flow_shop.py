"""The engine in another trade: the shop of `docs/flow.md`, run from that page."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from sqlalchemy import func, select, text, update

from apps.common.database import Sessions, make_engine, make_sessions, transaction
from apps.common.errors import Unavailable
from apps.common.settings import normalise_database_url
from apps.flow.lanes import LaneBusy, lanes
from apps.flow.lease import acquire
from apps.flow.runner import MAX_ATTEMPTS, run, unpark
from apps.flow.schedule import fires
from apps.flow.sweep import wake
from tests.support.postgres import Server

ROOT = Path(__file__).parents[3]


class Killed(BaseException):
    """The worker's process ends here."""


class Bank:
    """Takes each name once, as the engine asks of whatever takes an effect."""

    def __init__(self) -> None:
        self.charged: dict[str, int] = {}
        self.refuses = False
        self.fails: Exception | None = None
        self.kills = False

    def charge(self, name: str, customer: str, cents: int) -> bool:
        if self.fails is not None:
            raise self.fails
        if self.refuses:
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

    def send(self, name: str, customer: str) -> str | None:
        if self.busy:
            return None
        if name not in self.sent:
            self.sent.append(name)
        return f"parcel-{self.sent.index(name)}"


class Shop:
    """The page's code with a database, a bank and a carrier; what it hints at is kept."""

    def __init__(self, page: Any, sessions: Sessions) -> None:
        self.page = page
        self.sessions = sessions
        self.bank, self.carrier = Bank(), Carrier()
        self.hints: list[tuple[str, str | None]] = []
        self.flow = page.OrderFlow(
            sessions, lambda task, row_id: self.hints.append((task, row_id)), self.bank, self.carrier
        )

    def place(self, order_id: str = "o1") -> None:
        with transaction(self.sessions) as session:
            session.add(
                self.page.Order(id=order_id, status="placed", customer="ann", cents=500, next_run_at=func.now())
            )

    def work(self, *, early: bool = False) -> int:
        """What a worker's task does."""
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


@pytest.fixture
def shop(postgres: Server) -> Iterator[Shop]:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "flow.md").read_text(), re.DOTALL)
    page: dict[str, Any] = {"__name__": "shop_of_the_page"}
    exec(compile(code, "docs/flow.md", "exec"), page)  # the page's code is what is tested
    engine = make_engine(normalise_database_url(postgres.create("shop")))
    page["Base"].metadata.create_all(engine)
    yield Shop(SimpleNamespace(**page), make_sessions(engine))
    engine.dispose()


def test_order__nothing_goes_wrong__paid_and_shipped_once(shop: Shop) -> None:
    shop.place()
    assert shop.work() == 1
    assert shop.hints == [("shop.orders.advance", "o1")]
    assert shop.work() == 1
    assert (shop.order().status, shop.order().parcel, shop.order().next_run_at) == ("shipped", "parcel-0", None)
    assert shop.work(early=True) == 0
    assert (shop.bank.charged, shop.carrier.sent) == ({"order:o1:charge": 500}, ["order:o1:parcel"])
    assert shop.history() == ["checkpoint", "checkpoint"]


def test_order__worker_killed_after_the_charge__charged_once_and_goes_on(shop: Shop) -> None:
    shop.place()
    shop.bank.kills = True
    with pytest.raises(Killed):
        shop.work()
    shop.bank.kills = False
    assert shop.order().status == "placed"
    assert shop.work() == 0, "the dead worker's lease still stands"
    shop.lease_runs_out()
    shop.work()
    shop.work()
    assert shop.order().status == "shipped"
    assert shop.bank.charged == {"order:o1:charge": 500}


def test_order__worker_frozen_past_its_lease__its_result_is_discarded_and_recorded(shop: Shop) -> None:
    shop.place()
    (frozen,) = acquire(shop.sessions, shop.page.Order, 60)
    shop.lease_runs_out()
    shop.work()
    shop.work()
    with structlog.testing.capture_logs() as logs:
        assert run(shop.flow, frozen) is None
    assert shop.order().status == "shipped"
    assert [line["event"] for line in logs] == ["lease_lost"]
    assert shop.history()[-1] == "lease_lost"
    assert shop.bank.charged == {"order:o1:charge": 500}


def test_order__no_courier__waits_with_its_reason_and_uses_up_no_attempt(shop: Shop) -> None:
    shop.place()
    shop.work()
    shop.carrier.busy = True
    for _ in range(3):
        shop.work(early=True)
    found = shop.order()
    assert (found.status, found.reason["code"], found.attempts) == ("paid", "no_courier", 0)
    assert shop.history() == ["checkpoint", "waiting"], "the same reason is told once"
    shop.carrier.busy = False
    shop.work(early=True)
    assert (shop.order().status, shop.order().reason) == ("shipped", None)


def test_order__card_refused__parked_logged_and_tried_again_by_the_operator(shop: Shop) -> None:
    shop.place()
    shop.bank.refuses = True
    with structlog.testing.capture_logs() as logs:
        shop.work()
    found = shop.order()
    assert (found.status, found.parked_status, found.reason["code"]) == ("needs_attention", "placed", "card_refused")
    assert [(line["event"], line["log_level"]) for line in logs] == [("needs_attention", "error")]
    assert shop.work(early=True) == 0, "nothing is due until an operator says so"
    shop.bank.refuses = False
    with transaction(shop.sessions) as session:
        unpark(session, session.get_one(shop.page.Order, "o1"), "placed")
    shop.work()
    assert shop.history() == ["parked", "retried", "checkpoint"]
    assert shop.order().status == "paid"


@pytest.mark.parametrize(
    ("fault", "kept"),
    [
        (KeyError("a secret"), "unforeseen KeyError"),
        (Unavailable("The bank did not answer."), "The bank did not answer."),
    ],
)
def test_order__step_fails__tried_again_later_with_what_may_be_kept(shop: Shop, fault: Exception, kept: str) -> None:
    shop.place()
    shop.bank.fails = fault
    with structlog.testing.capture_logs() as logs:
        shop.work()
    found = shop.order()
    assert (found.status, found.last_error, found.attempts) == ("placed", kept, 1)
    assert "step_tried_again_later" in [line["event"] for line in logs]
    assert shop.work() == 0, "not at once"
    shop.bank.fails = None
    shop.work(early=True)
    assert (shop.order().status, shop.order().last_error, shop.order().attempts) == ("paid", None, 0)


def test_order__fails_every_time__parked_after_the_last_attempt(shop: Shop) -> None:
    shop.place()
    shop.bank.fails = RuntimeError()
    for _ in range(MAX_ATTEMPTS):
        assert shop.order().status == "placed"
        shop.work(early=True)
    assert shop.order().reason == {"code": "attempts_exhausted", "detail": "unforeseen RuntimeError"}
    assert shop.order().status == "needs_attention"


def test_order__outcome_that_cannot_be_written__comes_back_as_a_fault(shop: Shop) -> None:
    """A write that its own transaction refuses must not leave the row to a lease that merely runs out."""
    shop.place()
    with transaction(shop.sessions) as session:
        session.execute(text("ALTER TABLE orders ADD CONSTRAINT never_paid CHECK (status <> 'paid')"))
    shop.work()
    found = shop.order()
    assert (found.status, found.last_error, found.lease_token) == ("placed", "unforeseen IntegrityError", None)


def test_sweep_and_schedules__of_the_shop__work_on_its_own_tables(shop: Shop) -> None:
    shop.place()
    hints: list[tuple[str, str | None]] = []
    flows = {shop.page.Order: "shop.orders.advance"}
    assert wake(shop.sessions, lambda task, row_id: hints.append((task, row_id)), flows) == 1
    assert hints == [("shop.orders.advance", "o1")]
    assert wake(shop.sessions, lambda task, row_id: hints.append((task, row_id)), flows) == 0, "it is under way"
    assert fires(shop.sessions, shop.page.Firing, "stock-taking", 3600.0)
    assert not fires(shop.sessions, shop.page.Firing, "stock-taking", 3600.0)
    one = shop.sessions, shop.page.CustomerLane, "shop", ["ann"], 60.0
    with lanes(*one), pytest.raises(LaneBusy), lanes(*one):
        pass
