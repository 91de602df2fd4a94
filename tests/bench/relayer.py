"""``make bench NAME=relayer``: what the guarantees cost, measured against one node in one run. Figures, no assertions.

The limit is ``eth_sendRawTransaction`` of transactions signed beforehand, one after another. Ours goes from ``POST`` to
``confirmed`` through the real web server, broker and worker. In both the node mines a block per transaction and one
confirmation is asked for, so that waiting for blocks is not what is measured. Then thousands are kept in flight, and
what the node is asked per block is counted.
"""

import json
import logging
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Any

import requests
import structlog
from eth_account import Account

from apps.clients.shapes.relayer import NewTransaction
from apps.common.database import make_engine
from apps.common.shapes import load
from apps.common.wei import ETHER
from migrations import runner
from relayer.api.service import RelayerService
from tests.support.anvil import start_anvil
from tests.support.postgres import start_postgres
from tests.support.relayer import CHAIN_ID, CUSTODY, Node, make_house
from tests.support.relayer_stack import relayer_stack

MESSAGES = 500
CALLERS = 4
LOW_LOAD_MESSAGES = 40
IN_FLIGHT = 5_000
BLOCKS = 10
PER_BLOCK = 10
# The node's own third test key: a sender apart from the relayer's.
RAW_KEY = "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a"


def main() -> int:
    with start_postgres(durable=True) as server, start_anvil() as anvil:
        node = Node(anvil.url)
        raw_per_sec = _raw(node)
        _tell("raw sends, signed beforehand, one after another", f"{raw_per_sec:.0f} / s")
        database_url = server.create("relayer")
        runner.upgrade("relayer", database_url)
        with relayer_stack(database_url, (anvil.url,), CONFIRMATIONS="1", MAX_IN_FLIGHT="600") as stack:
            session = requests.Session()
            latency_ms = _post_to_broadcast_ms(session, stack.url)
            _tell(f"POST to broadcast, p50 of {LOW_LOAD_MESSAGES} one by one", f"{latency_ms:.0f} ms")
            ours_per_sec = _ours(session, stack.url)
            _tell(f"POST to confirmed, {MESSAGES} messages by {CALLERS} callers", f"{ours_per_sec:.0f} / s")
        database_url = server.create("relayer")
        runner.upgrade("relayer", database_url)
        calls, round_trips, tick_ms = _in_flight(node, database_url)
        _tell(f"{IN_FLIGHT} in flight: JSON-RPC calls per block, HTTP round trips", f"{calls:.0f}, {round_trips:.0f}")
        _tell(f"{IN_FLIGHT} in flight: a tick, median", f"{tick_ms:.0f} ms")
    result = {
        "bench": "relayer",
        "ratios": {"relay_vs_raw": round(ours_per_sec / raw_per_sec, 3)},
        "post_to_broadcast_p50_ms": round(latency_ms, 1),
        "rpc_calls_per_block_5000": round(calls, 1),
    }
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


def _raw(node: Node) -> float:
    signed = []
    for nonce in range(MESSAGES):
        fields = {
            "type": 2, "chainId": CHAIN_ID, "nonce": nonce, "to": CUSTODY, "value": 7, "gas": 21_000, "data": "0x",
            "maxFeePerGas": 10**11, "maxPriorityFeePerGas": 10**9,
        }  # fmt: skip
        signed.append(Account.sign_transaction(fields, RAW_KEY).raw_transaction.to_0x_hex())
    session = requests.Session()
    started = time.perf_counter()
    for raw in signed:
        body = {"jsonrpc": "2.0", "id": 1, "method": "eth_sendRawTransaction", "params": [raw]}
        answer = session.post(node.url, json=body, timeout=30).json()
        if "result" not in answer:
            raise RuntimeError(f"a raw send failed: {answer}")
    return MESSAGES / (time.perf_counter() - started)


def _body(message_id: str, value: int) -> dict[str, Any]:
    return {"message_id": message_id, "to": CUSTODY, "data": "0x", "value_wei": str(value), "gas_limit": 21_000}


def _post_to_broadcast_ms(session: requests.Session, url: str) -> float:
    """Both times are this machine's clock: before the POST, and in the event that says a node took the bytes."""
    found = []
    for number in range(LOW_LOAD_MESSAGES):
        message_id = f"low:{number}"
        posted_at = time.time()
        session.post(f"{url}/v1/transactions", json=_body(message_id, number + 1), timeout=30).raise_for_status()
        events = _until(partial(_events, session, url, message_id), _was_broadcast)
        at = next(item["at"] for item in events if item["type"] == "broadcast")
        found.append((datetime.fromisoformat(at).timestamp() - posted_at) * 1_000)
    return statistics.median(found)


def _events(session: requests.Session, url: str, message_id: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = session.get(f"{url}/v1/transactions/{message_id}/events", timeout=30).json()["items"]
    return items


def _was_broadcast(events: list[dict[str, Any]]) -> bool:
    return any(item["type"] == "broadcast" for item in events)


def _ours(session: requests.Session, url: str) -> float:
    def caller(number: int) -> None:
        with requests.Session() as own:
            for place in range(number, MESSAGES, CALLERS):
                body = _body(f"many:{place}", place + 1)
                own.post(f"{url}/v1/transactions", json=body, timeout=60).raise_for_status()

    started = time.perf_counter()
    with ThreadPoolExecutor(CALLERS) as callers:
        list(callers.map(caller, range(CALLERS)))
    unfinished = f"{url}/v1/transactions?limit=1&status=queued,signed,broadcast,mined"
    _until(lambda: session.get(unfinished, timeout=30).json()["items"], lambda items: not items)
    took = time.perf_counter() - started
    last = session.get(f"{url}/v1/transactions/many:{MESSAGES - 1}", timeout=30).json()
    if last["status"] != "confirmed":
        raise RuntimeError(f"a message ended {last['status']}")
    return MESSAGES / took


def _in_flight(node: Node, database_url: str) -> tuple[float, float, float]:
    """Calls and round trips per block, and a tick's milliseconds, while thousands wait and some are mined."""
    node.mine_by_hand()
    house = make_house(database_url, node, max_in_flight=IN_FLIGHT, max_gas_per_day_wei=100 * ETHER)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    house.pump()  # the signer is met
    service = RelayerService(
        house.context, make_engine(house.context.settings.database_url, autocommit=True), wake=lambda: None
    )
    for number in range(IN_FLIGHT):
        service.accept(load(NewTransaction, _body(f"flight:{number}", number + 1)))
    while house.pump().signed:
        pass
    node.rpc("evm_setBlockGasLimit", hex(21_000 * PER_BLOCK))
    endpoint = house.context.endpoints.all[0]
    calls, round_trips, ticks = endpoint.calls, endpoint.round_trips, []
    for _ in range(BLOCKS):
        node.mine()
        started = time.perf_counter()
        house.pump()
        ticks.append((time.perf_counter() - started) * 1_000)
    return (endpoint.calls - calls) / BLOCKS, (endpoint.round_trips - round_trips) / BLOCKS, statistics.median(ticks)


def _until(ask: Callable[[], Any], enough: Callable[[Any], bool]) -> Any:
    give_up = time.monotonic() + 300
    while time.monotonic() < give_up:
        found = ask()
        if enough(found):
            return found
        time.sleep(0.02)
    raise RuntimeError("it did not come about within 300 s")


def _tell(what: str, figure: str) -> None:
    sys.stdout.write(f"{what:<70} {figure:>14}\n")


if __name__ == "__main__":
    raise SystemExit(main())
