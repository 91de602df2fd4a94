"""Many orders of the shop of `docs/flow.md` in one message: few commits, and each order on its own all the same."""

import pytest
import structlog
from sqlalchemy import func, select, text, update

from apps.common import database
from apps.common.database import transaction
from apps.flow.runner import advance
from apps.flow.sweep import wake
from tests.support.shop import Killed, Shop

MANY = [f"o{number:03}" for number in range(60)]


def test_advance__many_orders__all_paid_and_shipped_by_one_message_and_three_round_trips(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.place(*MANY)
    passed: list[str] = []
    monkeypatch.setattr(database, "crashpoint", passed.append)
    assert advance(shop.flow) == len(MANY)
    each = ["statement.committing", "statement.committed"]
    assert passed == each * 3, "the leases, the payments, the parcels: each a statement and its own transaction"
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
