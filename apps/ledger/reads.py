"""What the ledger answers to questions: movements, exports, balances, sums, audits. Nothing here writes."""

import csv
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from sqlalchemy import func, select

from apps.clients.shapes.common import AuditPage, IdPageQuery
from apps.clients.shapes.ledger import (
    Balance,
    BalancePage,
    BalanceQuery,
    BalancesQuery,
    ExportQuery,
    MovementPage,
    MovementsQuery,
    Statement,
    StatementQuery,
    Totals,
)
from apps.clients.shapes.ledger import Movement as MovementShape
from apps.common.database import Sessions, transaction
from apps.common.errors import NotFound, TooManyRequests
from apps.common.idempotency import dumps
from apps.common.shapes import dump
from apps.common.wire import MESSAGE_ID, cut, integer_cursor
from apps.ledger import balances
from apps.ledger.audits import audit_shape
from apps.ledger.kinds import LOSSES, SYSTEM_ACCOUNTS
from apps.ledger.models import Audit, Movement
from apps.ledger.movements import (
    COLUMNS,
    FIELDS,
    select_movements,
    settled_newest,
    shape,
    wait_until_decided,
    watermarks,
)
from apps.ledger.statements import statement
from apps.ledger.sums import account_sums, one_snapshot

EXPORT_PAGE = 5_000
# An export holds a thread for as long as its reader reads.
MAX_EXPORTS = 2


@dataclass(frozen=True)
class Export:
    """Lines of text, and what gives the export's place back: call it when no more lines are wanted."""

    lines: Iterator[str]
    close: Callable[[], None]


class LedgerReads:
    """What the routes ask. Where a question names no pool, it is about `default_pool_id`."""

    def __init__(self, sessions: Sessions, default_pool_id: str) -> None:
        self._sessions = sessions
        self._default_pool_id = default_pool_id
        self._exports = threading.BoundedSemaphore(MAX_EXPORTS)

    def movement(self, message_id: str) -> MovementShape:
        """The movement of a message_id; raises `NotFound`."""
        row = None
        if MESSAGE_ID.fullmatch(message_id):
            with transaction(self._sessions) as session:
                row = session.execute(select(*COLUMNS).where(Movement.message_id == message_id)).one_or_none()
        if row is None:
            raise NotFound("There is no movement with this message_id.")
        return shape(row)

    def movements(self, query: MovementsQuery) -> MovementPage:
        """Movements in the order of their ids. A cursor, once given, never passes a movement that is committed later."""
        statement = select_movements(self._pool(query.pool_id), query.user_id, query.kind)
        statement = statement.where(Movement.id > integer_cursor(query.after)).limit(query.limit + 1)
        if query.created_after is not None:
            statement = statement.where(Movement.created_at > query.created_after)
        with transaction(self._sessions) as session:
            newest, decided = watermarks(session)
            statement = statement.where(Movement.id <= newest)
            rows = session.execute(statement).all()
            shown = rows[: query.limit]
            if shown and shown[-1].id > decided:
                wait_until_decided(session, shown[-1].id)
                rows = session.execute(statement).all()
        return MovementPage(*cut([shape(row) for row in rows], query.limit, lambda item: str(item.id)))

    def export(self, query: ExportQuery) -> Export:
        """All movements up to now, in the order of ids, each a line of JSON (``ndjson``) or of ``csv`` after a header.

        Raises `TooManyRequests` while `MAX_EXPORTS` others are under way; call `close` when it is no longer read.
        """
        if not self._exports.acquire(blocking=False):
            raise TooManyRequests("Other exports are under way; ask again when one has ended.", retry_after=5)
        place = ExitStack()
        place.callback(self._exports.release)
        return Export(self._lines(query, place), place.close)

    def balance(self, query: BalanceQuery, user_id: str) -> Balance:
        """A user's balance now, or as of a time that has come. An unknown user has zeros."""
        pool_id = self._pool(query.pool_id)
        with transaction(self._sessions) as session:
            if query.at is None:
                return balances.now(session, pool_id, user_id)
            return balances.as_of(session, pool_id, user_id, query.at)

    def balances(self, query: BalancesQuery) -> BalancePage:
        """Every user's balance, ordered by user_id."""
        with transaction(self._sessions) as session:
            pool_id, after = self._pool(query.pool_id), query.after or ""
            items = balances.by_user(session, pool_id, after, query.limit + 1, query.prefix)
        return BalancePage(*cut(items, query.limit, lambda item: item.user_id))

    def statement(self, query: StatementQuery, user_id: str) -> Statement:
        """What a user had at both ends of a span, and what moved in between."""
        with transaction(self._sessions) as session:
            return statement(session, self._pool(query.pool_id), user_id, query)

    def totals(self, pool_id: str | None) -> Totals:
        """Sums over the pool as of one moment: user buckets, system accounts, and all together, which is zero."""
        pool_id = self._pool(pool_id)
        with transaction(self._sessions) as session:
            one_snapshot(session)
            sums = account_sums(session, pool_id)
            last = session.scalar(select(func.max(Movement.id)).where(Movement.pool_id == pool_id))
        shown = (*SYSTEM_ACCOUNTS, *([LOSSES] if sums.get(LOSSES) else []))
        return Totals(
            pool_id,
            available_wei=sums["available"],
            reserved_wei=sums["reserved"],
            staked_wei=sums["staked"],
            unstaking_wei=sums["unstaking"],
            system={name: sums.get(name, 0) for name in shown},
            sum_wei=sum(sums.values()),
            last_movement_id=last,
        )

    def audits(self, query: IdPageQuery) -> AuditPage:
        """Audits, newest first."""
        statement = select(Audit).order_by(Audit.id.desc()).limit(query.limit + 1)
        if query.after is not None:
            statement = statement.where(Audit.id < query.after)
        with transaction(self._sessions) as session:
            rows = session.scalars(statement).all()
        return AuditPage(*cut([audit_shape(row) for row in rows], query.limit, lambda item: item.id))

    def _pool(self, pool_id: str | None) -> str:
        return pool_id or self._default_pool_id

    def _lines(self, query: ExportQuery, place: ExitStack) -> Iterator[str]:
        with place:
            newest = settled_newest(self._sessions)
            statement = select_movements(self._pool(query.pool_id), query.user_id, query.kind).limit(EXPORT_PAGE)
            after = 0
            if query.format == "csv":
                yield _csv_line(FIELDS)
            while True:
                with transaction(self._sessions) as session:
                    rows = session.execute(statement.where(Movement.id > after, Movement.id <= newest)).all()
                if not rows:
                    return
                items = [dump(shape(row)) for row in rows]
                yield "".join(
                    _csv_line(tuple(item.values())) if query.format == "csv" else f"{dumps(item)}\n" for item in items
                )
                after = rows[-1].id


def _csv_line(values: tuple[object, ...]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(values)
    return line.getvalue()
