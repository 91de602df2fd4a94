"""The engine in another trade: the shop of `docs/flow.md`, one order and one step at a time."""

import pytest
import structlog
from sqlalchemy import text

from apps.common.database import transaction
from apps.common.errors import Unavailable
from apps.flow.lanes import LaneBusy, lanes
from apps.flow.lease import acquire
from apps.flow.runner import MAX_ATTEMPTS, run, unpark
from apps.flow.schedule import fires
from apps.flow.sweep import wake
from tests.support.shop import Killed, Shop


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
