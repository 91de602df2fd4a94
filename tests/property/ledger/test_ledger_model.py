"""One random history, four ledgers: a pure model, the program's arithmetic, the SQL itself, and the HTTP service.

Invariants by their numbers: L1 zero sum, L2 balance = sum of movements, L3 one unbroken chain, L4 no bucket below zero,
L7 one message_id, one movement, L8 a refusal changes nothing and stays, L9 a batch is all or nothing, L10 a batch is its
movements one by one, L12 as of a movement, L13 reversal, L16 pages = export = table, L19 killed backends.
"""

import itertools
import json
from typing import Any

import psycopg2
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from werkzeug.test import TestResponse

from apps.common.errors import Conflict
from apps.ledger.kinds import BUCKETS, KINDS, Kind
from apps.ledger.posting import Posting, apply_movement
from tests.support.ledger import LedgerHouse
from tests.support.ledger_model import Model, Request

USERS = ("alice", "bob", "Zoe")
_numbers = itertools.count()
_amounts = st.one_of(st.integers(1, 12), st.integers(1, 10**20), st.sampled_from([2**255, 2**256 - 1]))
# Mostly kinds that can succeed: money comes in often, and often moves on.
_kinds = st.one_of(
    st.just("deposit"), st.sampled_from(["stake_reserve", "stake_confirm"]), st.sampled_from(sorted(KINDS))
)


@st.composite
def drafts(draw: st.DrawFn) -> tuple[str, str | None, int]:
    kind = draw(_kinds)
    return kind, draw(st.sampled_from(USERS)) if KINDS[kind].needs_user else None, draw(_amounts)


class FourLedgers(RuleBasedStateMachine):
    """The SQL and the HTTP ledger share a database and are two pools in it."""

    house: LedgerHouse
    cursor: Any

    @initialize()
    def begin(self) -> None:
        self.run = next(_numbers)
        self.model = Model()
        self.arithmetic: dict[str, dict[str, int]] = {user: dict.fromkeys(BUCKETS, 0) for user in USERS}
        self.sides: dict[str, Kind] = {}
        self.history: list[Request] = []
        self.bodies: dict[str, bytes] = {}
        self.names = itertools.count()

    def new(self, draft: tuple[str, str | None, int], reference: str | None = None) -> Request:
        return Request(f"m{next(self.names)}", *draft, reference)

    @rule(draft=drafts())
    def post(self, draft: tuple[str, str | None, int]) -> None:
        self.single(self.new(draft))

    @rule(data=st.data())
    def post_again(self, data: st.DataObject) -> None:
        if self.history:
            self.single(data.draw(st.sampled_from(self.history)))

    @rule(data=st.data(), wei=_amounts)
    def reuse_a_name(self, data: st.DataObject, wei: int) -> None:
        if self.history:
            old = data.draw(st.sampled_from(self.history))
            self.single(Request(old.message_id, old.kind, old.user, wei, old.reference))

    @rule(data=st.data())
    def reverse(self, data: st.DataObject) -> None:
        if self.history:
            old = data.draw(st.sampled_from(self.history))
            self.single(self.new(("reversal", old.user, old.wei), old.message_id))

    @rule(
        given=st.lists(drafts(), min_size=1, max_size=6),
        data=st.data(),
        insert_old=st.booleans(),
        reverse_first=st.booleans(),
    )
    def post_batch(
        self,
        given: list[tuple[str, str | None, int]],
        data: st.DataObject,
        *,
        insert_old: bool,
        reverse_first: bool,
    ) -> None:
        items = [self.new(draft) for draft in given]
        if self.history and insert_old:
            items.insert(data.draw(st.integers(0, len(items))), data.draw(st.sampled_from(self.history)))
        if reverse_first:
            first = items[0]
            items.append(self.new(("reversal", first.user, first.wei), first.message_id))
        expected = self.model.batch(items)
        answer = self.house.batch([self.body(item) for item in items])
        assert outcome_of(answer) == expected
        codes = [self.by_sql(item) for item in items]
        assert any(codes) == (expected not in {"posted", "replayed"})
        if any(codes):
            self.cursor.connection.rollback()
        else:
            self.cursor.connection.commit()
        if expected == "posted":
            self.history.extend(items)
            self.note(items)

    @rule()
    def kill_every_backend(self) -> None:
        """The service finds its connections dead at the next call, and nobody notices. (L19) Dead: it is waited for."""
        self.cursor.execute(
            "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        self.cursor.connection.commit()

    @invariant()
    def four_agree(self) -> None:
        if not hasattr(self, "model"):
            return
        for user in USERS:
            expected = self.model.buckets(user)
            assert all(0 <= wei < 2**256 for wei in expected)
            assert tuple(self.arithmetic[user].values()) == expected
            self.cursor.execute(
                "SELECT available_wei, reserved_wei, staked_wei, unstaking_wei FROM balances "
                "WHERE pool_id = %s AND user_id = %s",
                (f"sql-{self.run}", user),
            )
            assert tuple(int(wei) for wei in self.cursor.fetchone() or (0, 0, 0, 0)) == expected
            self.cursor.connection.commit()
            assert self.house.buckets(user, pool_id=f"http-{self.run}") == expected

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        pool = f"http-{self.run}"
        assert sum(self.model.accounts.values()) == 0
        totals = self.house.read("/v1/totals", pool_id=pool)
        assert totals["sum_wei"] == "0"
        found = {name: int(wei) for name, wei in totals["system"].items() if wei != "0"}
        assert found == {name: wei for name, wei in self.model.system().items() if wei != 0}
        self.house.assert_books_agree(pool)
        self.house.assert_books_agree(f"sql-{self.run}")
        items = self.house.pages(limit=3, pool_id=pool)
        assert [item["message_id"].split(":", 1)[1] for item in items] == list(self.model.posted)
        export = self.house.get("/v1/exports/movements", pool_id=pool).get_data(as_text=True)
        assert [json.loads(line) for line in export.splitlines()] == items
        self.as_of_each(pool, items)

    def as_of_each(self, pool: str, items: list[dict[str, Any]]) -> None:
        """L12: as of the time of a movement, a user has what the movements up to that time left."""
        model = Model()
        for item, following in itertools.pairwise([*items, None]):
            assert item is not None
            model.post(self.model.posted[item["message_id"].split(":", 1)[1]])
            user = item["user_id"]
            batch_goes_on = following is not None and following["created_at"] == item["created_at"]
            if user is not None and not batch_goes_on:
                assert self.house.buckets(user, pool_id=pool, at=item["created_at"]) == model.buckets(user)

    def single(self, new: Request) -> None:
        expected = self.model.post(new)
        answer = self.house.post("/v1/movements", self.body(new))
        assert outcome_of(answer) == expected
        if expected != "reused":
            assert answer.data == self.bodies.setdefault(new.message_id, answer.data)
        assert self.by_sql(new) == (None if expected in {"posted", "replayed"} else self.refusal_of(new.message_id))
        self.cursor.connection.commit()
        if new not in self.history and expected != "reused":
            self.history.append(new)
        if expected == "posted":
            self.note([new])

    def note(self, items: list[Request]) -> None:
        """The program's own arithmetic, on what was posted for the first time."""
        for item in items:
            if item.message_id in self.sides:
                continue
            kind = KINDS.get(item.kind) or self.sides[item.reference or ""].swapped()
            self.sides[item.message_id] = kind
            if item.user is not None:
                new = Posting(item.message_id, item.kind, "p", item.user, item.wei, item.reference)
                try:
                    apply_movement(self.arithmetic[item.user], new, kind)
                except Conflict as error:
                    raise AssertionError(f"the arithmetic refuses what was posted: {new}") from error

    def refusal_of(self, message_id: str) -> str | None:
        return self.model.refused[message_id][1] if message_id in self.model.refused else None

    def by_sql(self, new: Request) -> str | None:
        """Straight into the database function, in the transaction of the caller; returns the refusal's code."""
        kind = KINDS.get(new.kind)
        source, target = (kind.source, kind.target) if kind else (None, None)
        name = f"s{self.run}:{new.message_id}"
        reference = f"s{self.run}:{new.reference}" if new.reference else None
        self.cursor.execute(
            "SELECT code FROM post_movement(%s, %s, %s, %s, %s, %s, %s, %s, '')",
            (name, new.kind, f"sql-{self.run}", new.user, source, target, new.wei, reference),
        )
        code: str | None = self.cursor.fetchone()[0]
        return code

    def body(self, new: Request) -> dict[str, Any]:
        return {
            "message_id": f"h{self.run}:{new.message_id}",
            "kind": new.kind,
            "pool_id": f"http-{self.run}",
            "user_id": new.user,
            "amount_wei": str(new.wei),
            "reference": f"h{self.run}:{new.reference}" if new.reference else None,
        }


def outcome_of(answer: TestResponse) -> str:
    if answer.status_code in {200, 201}:
        assert (answer.headers.get("Idempotent-Replay") == "true") == (answer.status_code == 200)
        return "replayed" if answer.status_code == 200 else "posted"
    code = answer.get_json()["code"]
    assert answer.status_code == (422 if code == "message_id_reused" else 409), answer.get_json()
    return "reused" if code == "message_id_reused" else str(code)


def explore(ledger: LedgerHouse, examples: int, steps: int) -> None:
    connection = psycopg2.connect(ledger.database_url, connect_timeout=10)
    FourLedgers.house, FourLedgers.cursor = ledger, connection.cursor()
    try:
        run_state_machine_as_test(
            FourLedgers,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                # A history of real calls is short enough to read, and far too slow to shrink.
                phases=(Phase.explicit, Phase.generate),
                database=None,
                print_blob=True,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        connection.close()


def test_four_ledgers__on_any_history__are_one(ledger: LedgerHouse) -> None:
    explore(ledger, examples=12, steps=20)


@pytest.mark.prove
def test_four_ledgers__on_many_long_histories__are_one(ledger: LedgerHouse) -> None:
    explore(ledger, examples=40, steps=40)
