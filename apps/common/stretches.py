"""Stretches of an append-only log, each with a digest of its rows: what an audit has read once it need not read each time.

An audit that found nothing leaves a digest of every row since the one before. A later one of what is new reads one earlier
stretch again, another each time; a full one reads all of them. So a row that was changed, added or taken away behind an
audit's back is found at the latest when its turn comes, at a cost that does not grow with the log.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Text, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

# Ids in a stretch at most: a few tenths of a second to read again.
LONGEST = 50_000
_NAME = Text(collation="C")


class StretchMixin:
    """Columns of a service's ``audit_stretches``: ids above `from_id`, up to `through_id`, and their rows' digest. Never
    updated or deleted."""

    __tablename__ = "audit_stretches"

    pool_id: Mapped[str] = mapped_column(_NAME, primary_key=True)
    through_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    from_id: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str] = mapped_column(Text)


def old_is_trusted(session: Session, audits: Any, of_pool: ColumnElement[bool]) -> bool:
    """Whether an audit may start where the last clean one of a pool ended: unless one since the newest clean full one found
    something. `audits` is the service's model of them (``ok``, ``complete``, ``created_at``)."""
    newest = select(func.max(audits.created_at)).where(of_pool)
    last_full = session.scalar(newest.where(audits.ok, audits.complete))
    last_dirty = session.scalar(newest.where(~audits.ok))
    return last_full is not None and (last_dirty is None or last_dirty <= last_full)


@dataclass(frozen=True)
class Stretch:
    """Ids above `from_id`, up to `through_id`, and what their rows come to."""

    from_id: int
    through_id: int
    digest: str


class Stretches:
    """The stretches of one log: rows of `table` (with ``id`` and ``pool_id``), digested by `columns`."""

    def __init__(self, model: type[DeclarativeBase], table: str, columns: Sequence[str]) -> None:
        self._rows: Any = model.__table__
        # The row's text, so that NULL and the empty word differ. Names are ours, not a caller's.
        self._digest = text(
            "SELECT coalesce(encode(sha256(convert_to(string_agg(part, '' ORDER BY n), 'UTF8')), 'hex'), '')"  # noqa: S608
            f" FROM (SELECT id / 1000 AS n, md5(string_agg(ROW({', '.join(columns)})::text, ',' ORDER BY id)) AS part"
            f" FROM {table} WHERE pool_id = :pool_id AND id > :from_id AND id <= :through_id GROUP BY 1) parts"
        )

    def to_read_again(self, session: Session, pool_id: str, turn: int) -> list[Stretch]:
        """The stretch whose turn it is; none before there is one."""
        many = session.scalar(select(func.count()).where(self._rows.c.pool_id == pool_id)) or 0
        return self._stored(session, pool_id, offset=turn % many, limit=1) if many else []

    def all(self, session: Session, pool_id: str) -> list[Stretch]:
        return self._stored(session, pool_id)

    def changed(self, session: Session, pool_id: str, stretch: Stretch) -> str | None:
        """The digest of a stretch as it is now, where that is another than it was."""
        now = self._digest_of(session, pool_id, stretch.from_id, stretch.through_id)
        return None if now == stretch.digest else now

    def take(self, session: Session, pool_id: str, after: int, through: int) -> list[Stretch]:
        """The stretches that ids above `after`, up to `through`, make up now."""
        ends = [*range(after + LONGEST, through, LONGEST), through] if through > after else []
        starts = [after, *ends]
        return [
            Stretch(start, end, self._digest_of(session, pool_id, start, end))
            for start, end in zip(starts, ends, strict=False)
        ]

    def keep(self, session: Session, pool_id: str, stretches: Sequence[Stretch]) -> None:
        """Store what `take` found. Two audits at once may have come to the same."""
        rows = [{"pool_id": pool_id, **vars(each)} for each in stretches]
        if rows:
            session.execute(insert(self._rows).values(rows).on_conflict_do_nothing())

    def _stored(self, session: Session, pool_id: str, *, offset: int = 0, limit: int | None = None) -> list[Stretch]:
        columns = self._rows.c
        query = select(columns.from_id, columns.through_id, columns.digest).where(columns.pool_id == pool_id)
        rows = session.execute(query.order_by(columns.through_id).offset(offset).limit(limit))
        return [Stretch(row.from_id, row.through_id, row.digest) for row in rows]

    def _digest_of(self, session: Session, pool_id: str, from_id: int, through_id: int) -> str:
        values = {"pool_id": pool_id, "from_id": from_id, "through_id": through_id}
        return str(session.execute(self._digest, values).scalar_one())
