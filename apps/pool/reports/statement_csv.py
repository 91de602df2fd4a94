"""A statement as CSV: a line for the opening, each movement, each day's reward, and the closing."""

import csv
import io
from collections.abc import Iterator

from apps.clients.shapes.ledger import Buckets
from apps.clients.shapes.reports import Statement, StatementEnd
from apps.common.wire import format_time

HEADER = (
    "time", "type", "kind", "amount_wei", "amount_eth", "fee_wei", "from", "to",
    "available_wei", "reserved_wei", "staked_wei", "unstaking_wei", "earned_wei",
    "request_id", "tx_hash", "block_number", "message_id",
)  # fmt: skip
# A spreadsheet takes a text that begins with one of these for a formula.
_FORMULA = ("=", "+", "-", "@")


def rendered(statement: Statement) -> str:
    """The whole of it, a header first. Amounts are wei; `amount_eth` is the same in ETH."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\r\n")
    lines.writerow(HEADER)
    lines.writerows(_rows(statement))
    return text.getvalue()


def _rows(statement: Statement) -> Iterator[list[object]]:
    yield _end("opening", format_time(statement.start), statement.opening)
    for item in statement.movements:
        yield [
            format_time(item.at), "movement", item.kind, item.amount_wei, item.amount_eth, "",
            item.source.removeprefix("@"), item.target.removeprefix("@"),
            *_buckets(item.after), "", item.request_id, item.tx_hash, item.block_number, _text(item.message_id),
        ]  # fmt: skip
    for day in statement.days:
        yield [day.date, "reward", "", day.earned_wei, day.earned_eth, day.fee_wei, *[""] * 11]
    yield _end("closing", format_time(statement.end), statement.closing)


def _end(name: str, at: str, end: StatementEnd) -> list[object]:
    return [at, name, "", "", "", "", "", "", *_buckets(end.buckets), end.earned_wei, "", "", "", ""]


def _buckets(found: Buckets) -> list[int]:
    return [found.available_wei, found.reserved_wei, found.staked_wei, found.unstaking_wei]


def _text(value: str) -> str:
    return f"'{value}" if value.startswith(_FORMULA) else value
