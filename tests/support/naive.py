"""The control: a relayer as many are written, which the tests of the real one must catch.

It sends before it stores, takes its nonce from the node, and holds "nonce used and no receipt" for "never executed".
"""

import os
import time
from collections.abc import Sequence
from typing import Any

import psycopg2
import requests
from eth_account import Account

from apps.common.crashpoint import crashpoint
from tests.support.relayer import CHAIN_ID, CUSTODY, OPERATOR, OPERATOR_KEY

CRASH_POINTS = ("naive.delivered",)


def prepare(database_url: str, values_wei: Sequence[int]) -> None:
    """Make its table, with a message for each value."""
    with psycopg2.connect(database_url) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE naive (value_wei bigint PRIMARY KEY, nonce int, tx_hash text, done boolean)")
        cursor.executemany("INSERT INTO naive VALUES (%s, NULL, NULL, false)", [(value,) for value in values_wei])


def all_done(database_url: str) -> bool:
    with psycopg2.connect(database_url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM naive WHERE NOT done")
        row = cursor.fetchone()
    return row is not None and row[0] == 0


def work_forever() -> None:
    while True:
        tick(os.environ["NAIVE_DATABASE_URL"], os.environ["RPC_URL"])
        time.sleep(0.02)


def tick(database_url: str, rpc_url: str) -> None:
    """Send what is unsent, and send again what it believes lost."""
    with psycopg2.connect(database_url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT value_wei, nonce, tx_hash FROM naive WHERE NOT done ORDER BY value_wei")
        rows = cursor.fetchall()
    for value_wei, nonce, tx_hash in rows:
        if tx_hash is None:
            _send(database_url, rpc_url, value_wei)
        elif _rpc(rpc_url, "eth_getTransactionReceipt", tx_hash) is not None:
            _write(database_url, "UPDATE naive SET done = true WHERE value_wei = %s", value_wei)
        elif int(_rpc(rpc_url, "eth_getTransactionCount", OPERATOR, "latest"), 16) > nonce:
            _send(database_url, rpc_url, value_wei)


def _send(database_url: str, rpc_url: str, value_wei: int) -> None:
    nonce = int(_rpc(rpc_url, "eth_getTransactionCount", OPERATOR, "pending"), 16)
    fields = {
        "type": 2, "chainId": CHAIN_ID, "nonce": nonce, "to": CUSTODY, "value": value_wei, "gas": 21_000, "data": "0x",
        "maxFeePerGas": 10**11, "maxPriorityFeePerGas": 10**9,
    }  # fmt: skip
    signed = Account.sign_transaction(fields, "0x" + OPERATOR_KEY)
    tx_hash = _rpc(rpc_url, "eth_sendRawTransaction", signed.raw_transaction.to_0x_hex())
    crashpoint("naive.delivered")
    _write(database_url, "UPDATE naive SET nonce = %s, tx_hash = %s WHERE value_wei = %s", nonce, tx_hash, value_wei)


def _write(database_url: str, statement: str, *values: Any) -> None:
    with psycopg2.connect(database_url) as connection, connection.cursor() as cursor:
        cursor.execute(statement, values)


def _rpc(url: str, method: str, *params: Any) -> Any:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
    return requests.post(url, json=body, timeout=10).json().get("result")
