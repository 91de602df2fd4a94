"""A rude node: a JSON-RPC proxy in front of a real one, whose faults are switched on and off while it runs.

    with rude_node(anvil.url) as node:
        node.rude("batch_limit", most=10, style="object")
        node.rude("drop_log", times=1, which=lambda log: log["topics"][0] == CLAIMED)
        ...
        node.calm()

Every fault counts what it does: `times` is how often it strikes (None: until calmed), `used` what struck, in order. With
`every=2` it strikes at every second HTTP request only, as one of two nodes behind one address would. A soak may pick
names from `FAULTS` by a seed. `requests` holds the methods of each HTTP request.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests

Item = dict[str, Any]

HTML = b"<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center></body></html>"
# Which parameter of a method names a block.
BLOCK_PARAMETER = {
    "eth_call": 1, "eth_estimateGas": 1, "eth_getBalance": 1, "eth_getCode": 1, "eth_getTransactionCount": 1,
    "eth_getStorageAt": 2, "eth_feeHistory": 1, "eth_getBlockByNumber": 0, "eth_getBlockReceipts": 0,
}  # fmt: skip
STATE_METHODS = frozenset({"eth_call", "eth_getBalance", "eth_getCode", "eth_getTransactionCount", "eth_getStorageAt"})
FOUND_BY_HASH = frozenset({"eth_getTransactionReceipt", "eth_getTransactionByHash"})
FOUND_BY_NAME = frozenset({"eth_getBlockByNumber", "eth_getBlockByHash", "eth_getBlockReceipts"})
RANGE_TEXTS = (
    "block range is too wide", "eth_getLogs is limited to a {most} range", "exceed maximum block range: {most}",
    "query exceeds max block range {most}", "Log response size exceeded. You can make eth_getLogs requests with up to a "
    "{most} block range", "ranges over {most} blocks are not supported on freetier",
)  # fmt: skip
PRUNED_TEXTS = (
    "missing trie node 5b1c (path ) state 0x5b1c is not available",
    "required historical state unavailable (reexec=128)",
    "state at block #7 is pruned",
    "distance to target block exceeds maximum proof window",
)
BATCH_STYLES = ("object", "list_of_one", "items", "413", "400")
BROKEN_KINDS = ("html", "garbage", "empty", "close", "cut", "hang", "object", "null")


@dataclass
class Fault:
    """One switch. `left` None: strikes until calmed."""

    name: str
    left: int | None
    every: int
    options: dict[str, Any]
    seen: int = 0

    def strikes(self) -> bool:
        self.seen += 1
        if self.left == 0 or self.seen % self.every:
            return False
        if self.left is not None:
            self.left -= 1
        return True

    def __getitem__(self, name: str) -> Any:
        return self.options[name]


@dataclass
class Reply:
    """What goes back over the line; `cut` breaks it off after so many bytes."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


# Every fault with its options' defaults.
FAULTS: dict[str, dict[str, Any]] = {
    "batch_limit": {"most": 10, "style": "object"},  # one of BATCH_STYLES
    "response_limit": {"most": 4_000, "style": "items"},  # bytes; "items" or "413"
    "log_range": {"most": 5, "text": RANGE_TEXTS[0]},
    "log_count": {"most": 2},
    "rate": {"retry_after": None, "style": "http"},  # seconds, or None; "http" or "items"
    "broken": {"kind": "html", "status": 502},  # one of BROKEN_KINDS
    "missing": {"methods": ("eth_feeHistory",)},
    "no_tag": {"tags": ("finalized", "safe")},
    "no_block_hashes": {},  # no EIP-1898
    "pruned": {"depth": 2, "text": PRUNED_TEXTS[0]},
    "drop_log": {"which": lambda _log: True, "methods": ("eth_getLogs",)},  # each strike takes one log out of an answer
    "no_logs": {},
    "lag": {"blocks": 2},
    "pending": {"more": 1},  # what `pending` counts above the truth
    "shuffled": {},
    "doubled": {},  # each answer of a batch twice
    "lose_items": {"every_item": 2},  # the answers of every so manieth call of a batch are missing
    "no_ids": {},  # the answers of a batch carry no id
    "instead": {"answer": lambda _item: None},  # a result or an error made up, or None
}


class RudeNode:
    """`before` is called with the methods of each HTTP request, ahead of everything else."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.url = ""
        self.requests: list[list[str]] = []
        self.used: list[str] = []
        self.before: Callable[[list[str]], None] = lambda _methods: None
        self.released = threading.Event()
        self._faults: dict[str, Fault] = {}
        self._lock = threading.RLock()
        self._local = threading.local()

    def rude(self, name: str, times: int | None = None, every: int = 1, **options: Any) -> Fault:
        """Switch a fault on, or set it anew; returns it."""
        unknown = options.keys() - FAULTS[name].keys()
        assert not unknown, f"{name} has no options {unknown}"
        with self._lock:
            self._faults[name] = Fault(name, times, every, {**FAULTS[name], **options})
            return self._faults[name]

    def calm(self, *names: str) -> None:
        """Switch these faults off; all of them where none is named."""
        with self._lock:
            for name in names or tuple(self._faults):
                self._faults.pop(name, None)
        self.released.set()
        self.released = threading.Event()

    def calls(self) -> list[str]:
        return [method for methods in self.requests for method in methods]

    def handle(self, raw: bytes) -> Reply:
        asked = json.loads(raw)
        items: list[Item] = asked if isinstance(asked, list) else [asked]
        methods = [item["method"] for item in items]
        with self._lock:
            self.requests.append(methods)
        self.before(methods)
        whole = self._whole(asked, items)
        if whole is not None:
            return whole
        with self._lock:
            struck = {name for name, fault in self._faults.items() if name in _PER_REQUEST and self._strikes(fault)}
        answers = self._answers(items, struck)
        return self._pack(asked, answers, struck)

    # What becomes of a whole HTTP request, before anything reaches the node.

    def _whole(self, asked: Any, items: list[Item]) -> Reply | None:
        broken = self._take("broken")
        if broken:
            return self._broken(broken)
        rate = self._take("rate")
        if rate:
            return _rate_limited(rate, asked, items)
        limit = self._faults.get("batch_limit")
        if limit and isinstance(asked, list) and len(items) > limit["most"] and self._take("batch_limit"):
            return _batch_refused(limit, items)
        return None

    def _broken(self, fault: Fault) -> Reply:
        kind = fault["kind"]
        if kind == "hang":
            self.released.wait(60)
            return Reply(b"", cut=0)
        bodies = {
            "html": HTML, "garbage": b'{"jsonrpc": "2.0", "id": 1, "resu', "empty": b"", "close": b"", "cut": HTML,
            "object": b"{}", "null": b"null",
        }  # fmt: skip
        status = fault["status"] if kind == "html" else 200
        return Reply(bodies[kind], status, cut={"close": 0, "cut": 20}.get(kind))

    # What becomes of each call.

    def _answers(self, items: list[Item], struck: set[str]) -> list[Item]:
        head = self._head() if struck & {"lag", "pruned"} else 0
        answers: list[Item | None] = []
        asked_of_node: list[Item] = []
        for item in items:
            passed, refused = item, self._refused(item, struck, head)
            if refused is None and "lag" in struck:
                passed, refused = self._behind(item, head - self._faults["lag"]["blocks"])
            answers.append(None if refused is None else {"jsonrpc": "2.0", "id": item["id"], **refused})
            if refused is None:
                asked_of_node.append(passed)
        found = iter(self._ask(asked_of_node))
        whole = [answer if answer is not None else next(found) for answer in answers]
        return [self._spoilt(item, answer, struck, head) for item, answer in zip(items, whole, strict=True)]

    def _refused(self, item: Item, struck: set[str], head: int) -> Item | None:
        method, params = item["method"], item["params"]
        place = _block_parameter(item)
        if "instead" in struck:
            made_up: Item | None = self._faults["instead"]["answer"](item)
            if made_up is not None:
                return made_up
        if "missing" in struck and method in self._faults["missing"]["methods"]:
            return _error(-32601, f"the method {method} does not exist/is not available")
        if "no_tag" in struck and str(place) in self._faults["no_tag"]["tags"]:
            return _error(-32000, f"invalid argument 0: hex string without 0x prefix, {place} is not supported")
        if "no_block_hashes" in struck and isinstance(place, dict):
            return _error(-32602, "invalid argument 1: json: cannot unmarshal object into Go value of type string")
        if "pruned" in struck and method in STATE_METHODS:
            number = self._number(place)
            if number is not None and number < head - self._faults["pruned"]["depth"]:
                return _error(-32000, self._faults["pruned"]["text"])
        if "log_range" in struck and method == "eth_getLogs" and "fromBlock" in params[0]:
            most = self._faults["log_range"]["most"]
            if int(params[0]["toBlock"], 16) - int(params[0]["fromBlock"], 16) + 1 > most:
                return _error(-32602, self._faults["log_range"]["text"].format(most=most))
        return None

    def _behind(self, item: Item, head: int) -> tuple[Item, Item | None]:
        """The call as a node answers it that knows blocks up to `head` only."""
        method, params = item["method"], list(item["params"])
        if method == "eth_blockNumber":
            return item, {"result": hex(head)}
        if method == "eth_getLogs":
            return self._logs_behind(item, head)
        if method == "eth_getBlockByHash":
            return item, {"result": None} if (self._number({"blockHash": params[0]}) or 0) > head else None
        index = BLOCK_PARAMETER.get(method)
        if index is None:
            return item, None
        place = params[index] if len(params) > index else "latest"
        number = self._number(place)
        if place in ("latest", "pending") or (place in ("finalized", "safe") and (number or 0) > head):
            params[index : index + 1] = [hex(head)]
            return {**item, "params": params}, None
        if number is None or number > head:
            return item, {"result": None} if method in FOUND_BY_NAME else _error(-32000, "header not found")
        return item, None

    def _logs_behind(self, item: Item, head: int) -> tuple[Item, Item | None]:
        query = item["params"][0]
        if "blockHash" in query:
            number = self._number(query)
            return item, _error(-32000, "unknown block") if number is None or number > head else None
        if int(query["fromBlock"], 16) > head:
            return item, {"result": []}
        clipped = {**query, "toBlock": hex(min(head, int(query["toBlock"], 16)))}
        return {**item, "params": [clipped]}, None

    def _spoilt(self, item: Item, answer: Item, struck: set[str], head: int) -> Item:
        method, result = item["method"], answer.get("result")
        if "lag" in struck and isinstance(result, dict) and method in FOUND_BY_HASH:
            known_to = head - self._faults["lag"]["blocks"]
            return {**answer, "result": None} if int(result.get("blockNumber") or "0x0", 16) > known_to else answer
        if method == "eth_getLogs" and isinstance(result, list):
            count = self._faults.get("log_count")
            if count and len(result) > count["most"] and self._take("log_count"):
                text = f"query returned more than {count['most']} results"
                return {"jsonrpc": "2.0", "id": item["id"], **_error(-32005, text)}
            if result and self._take("no_logs"):
                return {**answer, "result": []}
        if method == "eth_getTransactionCount" and item["params"][1] == "pending":
            fault = self._take("pending")
            if fault:
                return {**answer, "result": hex(int(str(result), 16) + fault["more"])}
        return self._without_a_log(item, answer)

    def _without_a_log(self, item: Item, answer: Item) -> Item:
        fault, result = self._faults.get("drop_log"), answer.get("result")
        if fault is None or item["method"] not in fault["methods"] or not result:
            return answer
        if item["method"] == "eth_getLogs":
            chosen = next((log for log in result if fault["which"](log)), None)
            if chosen is None or not self._take("drop_log"):
                return answer
            return {**answer, "result": [log for log in result if log is not chosen]}
        receipts = result if isinstance(result, list) else [result]
        for receipt in receipts:
            chosen = next((log for log in receipt["logs"] if fault["which"](log)), None)
            if chosen is not None and self._take("drop_log"):
                receipt["logs"] = [log for log in receipt["logs"] if log is not chosen]
        return answer

    # How the answers are put together.

    def _pack(self, asked: Any, answers: list[Item], struck: set[str]) -> Reply:
        limit = self._faults.get("response_limit") if "response_limit" in struck else None
        if limit:
            too_large = _error(-32003, "response too large")
            size = 0
            for place, answer in enumerate(answers):
                size += len(json.dumps(answer))
                if size > limit["most"]:
                    if limit["style"] == "413":
                        return Reply(b"Payload Too Large", 413, {"Content-Type": "text/plain"})
                    answers[place] = {"jsonrpc": "2.0", "id": answer["id"], **too_large}
        if not isinstance(asked, list):
            return Reply(json.dumps(answers[0]).encode())
        if "lose_items" in struck and len(answers) > 1:
            step = self._faults["lose_items"]["every_item"]
            answers = [answer for place, answer in enumerate(answers, start=1) if place % step]
        if "doubled" in struck:
            answers = [answer for answer in answers for _ in range(2)]
        if "shuffled" in struck:
            answers = answers[1::2] + answers[::2][::-1]
        if "no_ids" in struck:
            answers = [{name: value for name, value in answer.items() if name != "id"} for answer in answers]
        return Reply(json.dumps(answers).encode())

    # The node behind, and the switches.

    def _take(self, name: str) -> Fault | None:
        with self._lock:
            fault = self._faults.get(name)
            return fault if fault is not None and self._strikes(fault) else None

    def _strikes(self, fault: Fault) -> bool:
        struck = fault.strikes()
        if struck:
            self.used.append(fault.name)
        return struck

    def _ask(self, items: list[Item]) -> list[Item]:
        if not items:
            return []
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
        found = self._local.session.post(self.upstream, json=items, timeout=60).json()
        by_id = {answer["id"]: answer for answer in found}
        return [by_id[item["id"]] for item in items]

    def _one(self, method: str, *params: Any) -> Any:
        return self._ask([{"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}])[0].get("result")

    def _head(self) -> int:
        return int(self._one("eth_blockNumber"), 16)

    def _number(self, place: Any) -> int | None:
        """The number that a block parameter names; None where the node has no such block."""
        if isinstance(place, dict):
            if "blockNumber" in place:
                return int(place["blockNumber"], 16)
            block = self._one("eth_getBlockByHash", place["blockHash"], False)
        elif str(place).startswith("0x") and len(str(place)) != 66:
            return int(place, 16)
        elif str(place).startswith("0x"):
            block = self._one("eth_getBlockByHash", place, False)
        else:
            block = self._one("eth_getBlockByNumber", place, False)
        return None if block is None else int(block["number"], 16)


# Faults that strike a whole HTTP request or not at all; the others count each answer that they spoil.
_PER_REQUEST = frozenset(
    {"missing", "no_tag", "no_block_hashes", "pruned", "log_range", "lag", "instead", "response_limit", "lose_items",
     "doubled", "shuffled", "no_ids"}
)  # fmt: skip


@contextmanager
def rude_node(upstream: str) -> Iterator[RudeNode]:
    """Serve until the block ends; without faults it only passes on."""
    node = RudeNode(upstream)
    with json_server(node.handle) as url:
        node.url = url
        try:
            yield node
        finally:
            node.calm()


@contextmanager
def json_server(handle: Callable[[bytes], Reply]) -> Iterator[str]:
    """An HTTP server in threads of its own: what `handle` makes of each POST's body. Yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 65_536  # in two pieces, the second waits until the caller has confirmed the first: a whole 40 ms

        def do_POST(self) -> None:
            reply = handle(self.rfile.read(int(self.headers["Content-Length"])))
            if reply.cut == 0:
                self.close_connection = True
                return
            self.send_response(reply.status)
            kind = "text/html" if reply.body.startswith(b"<") else "application/json"
            for name, value in {"Content-Type": kind, "Content-Length": str(len(reply.body)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body[: reply.cut])
            if reply.cut is not None:
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def _error(code: int, message: str) -> Item:
    return {"error": {"code": code, "message": message}}


def _block_parameter(item: Item) -> Any:
    index = BLOCK_PARAMETER.get(item["method"])
    params = item["params"]
    return params[index] if index is not None and len(params) > index else "latest"


def _rate_limited(fault: Fault, asked: Any, items: list[Item]) -> Reply:
    after = fault["retry_after"]
    headers = {} if after is None else {"Retry-After": str(after)}
    if fault["style"] == "http":
        return Reply(b"Too Many Requests", 429, {"Content-Type": "text/plain", **headers})
    error = _error(-32005, "project ID request rate exceeded")
    answers = [{"jsonrpc": "2.0", "id": item["id"], **error} for item in items]
    return Reply(json.dumps(answers if isinstance(asked, list) else answers[0]).encode(), 200, headers)


def _batch_refused(fault: Fault, items: list[Item]) -> Reply:
    style = fault["style"]
    error = _error(-32600, f"batch of {len(items)} is above the limit of {fault['most']} calls")
    if style == "413":
        return Reply(b"<html>413 Request Entity Too Large</html>", 413)
    if style == "items":
        return Reply(json.dumps([{"jsonrpc": "2.0", "id": item["id"], **error} for item in items]).encode())
    one = {"jsonrpc": "2.0", "id": None, **error}
    return Reply(json.dumps([one] if style == "list_of_one" else one).encode(), 400 if style == "400" else 200)
