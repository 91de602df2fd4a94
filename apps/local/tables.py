"""Snapshots of the databases' tables, for the demo's end and the walkthrough's every step."""

from dataclasses import dataclass
from typing import Any

import psycopg2

CELL_LENGTH = 44


@dataclass(frozen=True)
class TableView:
    """Which columns of which table are shown, in which order, for which rows; ``%(users)s`` and ``%(since)s`` are
    bound."""

    database: str
    table: str
    columns: tuple[str, ...]
    where: str
    order: str


@dataclass(frozen=True)
class Snapshot:
    view: TableView
    rows: list[tuple[Any, ...]]


VIEWS = (
    TableView(
        "ledger",
        "movements",
        ("id", "kind", "source", "target", "user_id", "amount_wei", "message_id"),
        "id > %(since)s",
        "id",
    ),
    TableView(
        "ledger",
        "balances",
        ("user_id", "available_wei", "reserved_wei", "staked_wei", "unstaking_wei"),
        "user_id = ANY(%(users)s)",
        "user_id",
    ),
    TableView(
        "rewards",
        "reward_positions",
        ("user_id", "staked_wei", "exiting_wei", "claimed_wei"),
        "user_id = ANY(%(users)s)",
        "user_id",
    ),
    TableView(
        "rewards",
        "reward_pools",
        ("pool_id", "weight_wei", "acc_reward_per_share", "accrued_wei", "claimed_wei", "deficit_wei"),
        "true",
        "pool_id",
    ),
    TableView(
        "pool",
        "requests",
        ("kind", "user_id", "amount_wei", "settled_wei", "status", "batch_id"),
        "user_id = ANY(%(users)s)",
        "id",
    ),
    TableView("pool", "batches", ("id", "kind", "status", "amount_wei", "request_count"), "true", "id"),
    TableView("pool", "withdrawals", ("withdrawal_id", "amount_wei", "paid_wei"), "true", "withdrawal_id"),
    TableView(
        "relayer", "messages", ("purpose", "status", "nonce", "tx_hash", "block_number", "gas_cost_wei"), "true", "seq"
    ),
)


def last_movement(database_urls: dict[str, str]) -> int:
    """The newest movement's id, to show only what a step adds."""
    return int(_query(database_urls["ledger"], "SELECT coalesce(max(id), 0) FROM movements", {})[0][0])


def snapshots(database_urls: dict[str, str], users: list[str], since: int) -> list[Snapshot]:
    """The tables as they stand; of movements, those after `since`. Empty tables are left out."""
    found = []
    for view in VIEWS:
        columns = ", ".join(view.columns)
        statement = f"SELECT {columns} FROM {view.table} WHERE {view.where} ORDER BY {view.order}"
        rows = _query(database_urls[view.database], statement, {"users": users, "since": since})
        if rows:
            found.append(Snapshot(view, rows))
    return found


def cell(value: Any) -> str:
    """A value as text; long names are cut in the middle, numbers never."""
    text = "" if value is None else str(value)
    if text.lstrip("-").isdigit() or len(text) <= CELL_LENGTH:
        return text
    return f"{text[: CELL_LENGTH // 2]}…{text[-CELL_LENGTH // 3 :]}"


def _query(url: str, statement: str, values: dict[str, object]) -> list[tuple[Any, ...]]:
    connection = psycopg2.connect(url, connect_timeout=5)
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall())
    finally:
        connection.close()
