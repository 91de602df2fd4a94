"""The engine in another trade: the shop of `docs/flow.md`, run from that page."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog
from sqlalchemy import Engine, event, func, select, text, update

from apps.common.database import Sessions, make_engine, make_sessions, transaction
from apps.common.errors import Unavailable
from apps.common.settings import normalise_database_url
from apps.flow.lanes import LaneBusy, lanes
from apps.flow.lease import acquire
from apps.flow.runner import MAX_ATTEMPTS, advance, run, unpark
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
    assert shop.order().status == "paid"
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
    assert wake(shop.sessions, lambda task, row_id: hints.append((task, row_id)), {}, flows) == 1
    assert hints == [("shop.orders.advance", None), ("shop.orders.advance", "o1")]
    acquire(shop.sessions, shop.page.Order, 60)
    assert wake(shop.sessions, lambda task, row_id: hints.append((task, row_id)), flows) == 0, "a worker has it"
    shop.lease_runs_out()
    assert wake(shop.sessions, lambda task, row_id: hints.append((task, row_id)), flows) == 1, "that worker died"
    assert fires(shop.sessions, shop.page.Firing, "stock-taking", 3600.0)
    assert not fires(shop.sessions, shop.page.Firing, "stock-taking", 3600.0)
    one = shop.sessions, shop.page.CustomerLane, "shop", ["ann"], 60.0
    with lanes(*one), pytest.raises(LaneBusy), lanes(*one):
        pass


MANY = [f"o{number:03}" for number in range(60)]


def test_advance__many_orders__all_paid_and_shipped_by_one_message_and_three_commits(shop: Shop) -> None:
    shop.place(*MANY)
    commits: list[object] = []
    event.listen(shop.engine, "commit", commits.append)
    assert advance(shop.flow) == len(MANY)
    assert len(commits) == 3, "the leases, the payments, the parcels"
    assert set(shop.statuses()) == {"shipped"}
    assert sorted(shop.carrier.sent) == [f"order:{order_id}:parcel" for order_id in MANY]
    with transaction(shop.sessions) as session:
        parcels = session.scalars(select(shop.page.Order.parcel)).all()
        history = session.execute(
            select(shop.page.OrderEvent.subject_id, func.array_agg(text("status ORDER BY id"))).group_by("subject_id")
        ).all()
    assert len(set(parcels)) == len(MANY), "each row has its own values"
    assert {row[0]: row[1] for row in history} == {order_id: ["paid", "shipped"] for order_id in MANY}
    assert shop.hints == [], "nothing was left for another message"


def test_advance__as_many_due_as_one_message_takes__rings_for_the_next_worker_first(shop: Shop) -> None:
    shop.place(*MANY[:3])
    shop.flow.rows_per_message = 2
    assert [advance(shop.flow), advance(shop.flow), advance(shop.flow)] == [2, 1, 0]
    assert shop.hints == [("shop.orders.advance", None)]
    assert set(shop.statuses()) == {"shipped"}


def test_advance__worker_killed_in_the_second_step__the_first_is_durable_and_charged_once(shop: Shop) -> None:
    shop.place(*MANY[:3])
    shop.carrier.kills_at = 2
    with pytest.raises(Killed):
        advance(shop.flow)
    assert shop.statuses() == ["paid", "paid", "paid"]
    assert advance(shop.flow) == 0, "the dead worker's leases still stand"
    shop.carrier.kills_at = None
    shop.lease_runs_out()
    assert advance(shop.flow) == 3
    assert set(shop.statuses()) == {"shipped"}
    assert len(shop.bank.charged) == 3
    assert len(shop.carrier.sent) == 3


def test_advance__one_order_cannot_be_written__that_one_comes_back_and_the_others_go_on(shop: Shop) -> None:
    shop.place(*MANY[:3])
    with transaction(shop.sessions) as session:
        session.execute(text("ALTER TABLE orders ADD CHECK (id <> 'o001' OR status = 'placed')"))
    advance(shop.flow)
    assert shop.statuses() == ["shipped", "placed", "shipped"]
    with transaction(shop.sessions) as session:
        found = session.get_one(shop.page.Order, "o001")
    assert (found.last_error, found.attempts, found.lease_token) == ("unforeseen IntegrityError", 1, None)


def test_advance__one_lease_lost_among_many__its_result_is_discarded_and_the_others_are_written(shop: Shop) -> None:
    shop.place(*MANY[:3])

    def taken_over(order_id: str) -> None:
        if order_id == "o001":
            with transaction(shop.sessions) as session:
                session.execute(update(shop.page.Order).where(shop.page.Order.id == order_id).values(lease_token="b"))

    shop.bank.before = taken_over
    with structlog.testing.capture_logs() as logs:
        advance(shop.flow)
    assert shop.statuses() == ["shipped", "placed", "shipped"]
    assert [line["event"] for line in logs] == ["lease_lost"]
    with transaction(shop.sessions) as session:
        lost = select(shop.page.OrderEvent.type).where(shop.page.OrderEvent.subject_id == "o001")
        assert session.scalars(lost).all() == ["lease_lost"]


def test_advance__slow_steps__what_was_not_begun_is_given_back_unharmed(shop: Shop) -> None:
    shop.place(*MANY[:3])
    shop.flow.lease_sec = -1.0  # its share of the time is over at once
    assert advance(shop.flow) == 3
    assert shop.statuses() == ["paid", "placed", "placed"]
    with transaction(shop.sessions) as session:
        rows = session.execute(select(shop.page.Order.attempts, shop.page.Order.lease_token)).all()
    assert set(rows) == {(0, None)}
    assert ("shop.orders.advance", None) in shop.hints


def test_advance__orders_of_a_later_release__are_left_to_its_workers(shop: Shop) -> None:
    shop.place(*MANY[:2])
    with transaction(shop.sessions) as session:
        session.execute(update(shop.page.Order).where(shop.page.Order.id == "o001").values(flow_version=2))
    hints: list[str] = []
    assert advance(shop.flow) == 1
    assert wake(shop.sessions, lambda task, _: hints.append(task), {shop.page.Order: "shop.orders.advance"}) == 0
    assert shop.statuses() == ["shipped", "placed"]


def test_advance__faults_waits_and_refusals_in_one_burst__each_row_gets_its_own(shop: Shop) -> None:
    shop.place(*MANY[:3])
    shop.carrier.busy = True

    def misbehave(order_id: str) -> None:
        if order_id == "o000":
            raise RuntimeError("word of a secret")

    shop.bank.before = misbehave
    shop.bank.refused = {"o001"}
    advance(shop.flow)
    with transaction(shop.sessions) as session:
        rows = session.scalars(select(shop.page.Order).order_by(shop.page.Order.id)).all()
    found = [(row.status, row.attempts, row.last_error, (row.reason or {}).get("code")) for row in rows]
    assert found == [
        ("placed", 1, "unforeseen RuntimeError", None),
        ("needs_attention", 0, None, "card_refused"),
        ("paid", 0, None, "no_courier"),
    ]
    assert all(row.lease_token is None for row in rows)
    assert [row.next_run_at is None for row in rows] == [False, True, False]
