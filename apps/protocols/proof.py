"""Reading one range of the operator's history from one node, and the proof that nothing of it is missing.

A node's answer to a log query proves nothing about absence: its index may lag, its head may be older, one of two nodes
behind one address may answer. So a range is believed only when all of this holds:

- the headers of its blocks are one chain, from the block that was read last to the range's end, each log in one of them;
- every block whose bloom may hold one of these logs is read again by its receipts, all of them, and they decide. A bloom
  has no false negatives, comes with the header, and must be the very one that the logs of the receipts make; these are
  numbered without a gap. A header with transactions and an empty bloom proves nothing, so its block is read, too;
- the share flows found are the difference of the operator's shares at both ends, each read at its block's hash. Where the
  node keeps no state as old as the range's end, the sum is carried on and checked at the next end that it does keep. Shares
  that came or went without a log count as ops have said (`ShareDifference`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from apps.ethereum.endpoints import Behind
from apps.ethereum.jsonrpc import Endpoint, RpcError, TooSlow
from apps.ethereum.logs import integer, topic_of
from apps.ethereum.node_words import Trouble
from apps.protocols import classify
from apps.protocols.calls import Call, decoded, well_formed
from apps.protocols.chain import Block, Chain, read_block
from apps.protocols.items import Item
from apps.protocols.queries import Query, bloom_of, queries

log = structlog.get_logger(__name__)


class Unproved(Exception):
    """What this node answers does not fit together, or leaves something out."""


class RangeRefused(Exception):
    """The node does not read that many blocks at once; fewer may do."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(str(error))


@dataclass(frozen=True)
class Proved:
    """The items of a range that is complete, the operator's shares at its end, and the hashes of its blocks."""

    end: Block
    items: list[Item]
    shares: int
    hashes: list[tuple[int, str]]


def read_range(
    chain: Chain, endpoint: Endpoint, known: Block, known_shares: int | None, end: int, accepted: int = 0
) -> Proved:
    """The blocks after `known` up to `end`. `known_shares`: the operator's at `known`, where they are proved; `accepted`:
    shares that came (or went, below zero) in these blocks without a log, as ops have said.

    Raises `Unproved`, `RangeRefused`, or what a node that cannot answer raises.
    """
    return well_formed(lambda one: _read(chain, one, known, known_shares, end, accepted), endpoint)


def _read(chain: Chain, endpoint: Endpoint, known: Block, known_shares: int | None, end: int, accepted: int) -> Proved:
    asked = queries(chain)
    numbers = range(known.number + 1, end + 1)
    logs, headers = _ask(chain, endpoint, asked, numbers)
    _check_linked(known, headers)
    last = read_block(headers[-1])
    _check_placed(logs, headers)
    suspects = _suspects(asked.values(), headers, logs)
    receipts = _receipts(endpoint, suspects)
    found = {name: _of(query, receipts) for name, query in asked.items()}
    _compare(logs, found)
    rebased_in = sorted({integer(one["blockNumber"]) for one in found["rebased"]})
    shares = _shares(chain, endpoint, known, known_shares, headers, rebased_in)
    flows = classify.flows(
        [*found["out"], *found["into"]],
        [*found["sent"], *found["received"]],
        found["submitted"],
        found["requested"],
        me=topic_of(chain.operator),
        queue=topic_of(chain.queue.address),
    )
    before, after = shares[known.number], shares[last.number]
    assert before is not None  # for this block `_shares` raises where the node keeps no state
    moved = sum(flow.moved for flow in flows) + accepted
    if after is None:
        after = before + moved  # checked at the end of the next range whose state the node keeps
    if before + moved != after:
        raise Unproved(
            f"The operator's shares went from {before} to {after} between blocks {known.number} and {last.number}, and the "
            f"logs that node {endpoint.number} shows make {moved}."
        )
    return Proved(
        end=last,
        items=[*flows, *map(classify.claim, found["claimed"]), *_rebases(found["rebased"], flows, shares, before)],
        shares=after,
        hashes=[(integer(header["number"]), str(header["hash"])) for header in headers],
    )


def _ask(
    chain: Chain, endpoint: Endpoint, asked: Mapping[str, Query], numbers: range
) -> tuple[dict[str, list[Any]], list[Any]]:
    """The logs as the node's own index has them, and the headers of all blocks, in one batch."""
    calls = [chain.logs([query.address], query.topics, numbers[0], numbers[-1]) for query in asked.values()]
    calls += [Call("eth_getBlockByNumber", [hex(number), False]) for number in numbers]
    try:
        results = endpoint.batch([(call.method, call.params) for call in calls])
    except TooSlow as error:
        raise RangeRefused(error) from error
    for result in results[: len(asked)]:
        if isinstance(result, RpcError) and result.trouble is not Trouble.BEHIND:
            raise RangeRefused(result)
    for number, header in zip(numbers, results[len(asked) :], strict=True):
        if header is None:
            raise Unproved(f"Node {endpoint.number} does not show block {number}, which is below its own horizon.")
    for result in results:
        if isinstance(result, RpcError):
            raise result
    return dict(zip(asked, results[: len(asked)], strict=True)), results[len(asked) :]


def _check_linked(known: Block, headers: Sequence[Any]) -> None:
    number, parent = known.number, known.hash
    for header in headers:
        if integer(header["number"]) != number + 1 or header["parentHash"] != parent:
            raise Unproved(f"Block {number + 1}, as it is shown now, does not follow on block {number}, {parent}.")
        number, parent = number + 1, header["hash"]


def _check_placed(logs: Mapping[str, Iterable[Any]], headers: Sequence[Any]) -> None:
    hashes = {integer(header["number"]): header["hash"] for header in headers}
    for one in (one for found in logs.values() for one in found):
        if one.get("removed") or hashes.get(integer(one["blockNumber"])) != one["blockHash"]:
            raise Unproved(
                f"A log was shown of block {integer(one['blockNumber'])} that is in none of the range's blocks."
            )


def _suspects(asked: Iterable[Query], headers: Sequence[Any], logs: Mapping[str, Iterable[Any]]) -> list[Any]:
    """The blocks that may hold a log of the history: by their blooms, and by what the log queries showed."""
    masks = {query.bloom for query in asked}
    shown = {one["blockHash"] for found in logs.values() for one in found}
    suspects = []
    for header in headers:
        bloom = int(header["logsBloom"], 16)
        unsaid = bloom == 0 and header["transactions"]
        if unsaid or header["hash"] in shown or any(bloom & mask == mask for mask in masks):
            suspects.append(header)
    return suspects


def _receipts(endpoint: Endpoint, headers: Sequence[Any]) -> list[Any]:
    """All receipts of these blocks, by block where the node has that method, else one by one."""
    by_block = endpoint.batch([("eth_getBlockReceipts", [header["hash"]]) for header in headers])
    found = []
    for header, receipts in zip(headers, by_block, strict=True):
        if isinstance(receipts, RpcError):
            if receipts.trouble is Trouble.BEHIND:
                raise receipts
            hashes = header["transactions"]
            receipts = endpoint.batch([("eth_getTransactionReceipt", [tx_hash]) for tx_hash in hashes])  # noqa: PLW2901
        if receipts is None or None in receipts:
            raise Behind(f"Block {integer(header['number'])} is not known to every node yet.")
        errors = [receipt for receipt in receipts if isinstance(receipt, RpcError)]
        if errors:
            raise errors[0]
        if sorted(receipt["transactionHash"] for receipt in receipts) != sorted(header["transactions"]) or any(
            receipt["blockHash"] != header["hash"] for receipt in receipts
        ):
            raise Unproved(
                f"The receipts shown of block {integer(header['number'])} are not those of its transactions."
            )
        bloom = int(header["logsBloom"], 16)
        places = sorted(integer(one["logIndex"]) for receipt in receipts for one in receipt["logs"])
        if places != list(range(len(places))) or (bloom and bloom != bloom_of(_words(receipts))):
            raise Unproved(
                f"The logs shown of block {integer(header['number'])} are not all: see their numbers, or the bloom."
            )
        found += receipts
    return found


def _words(receipts: Iterable[Any]) -> set[str]:
    logs = [one for receipt in receipts for one in receipt["logs"]]
    return {one["address"] for one in logs} | {topic for one in logs for topic in one["topics"]}


def _of(query: Query, receipts: Iterable[Any]) -> list[Any]:
    return [one for receipt in receipts for one in receipt["logs"] if query.matches(one)]


def _compare(shown: Mapping[str, Sequence[Any]], found: Mapping[str, Sequence[Any]]) -> None:
    """Receipts decide: a log that the query left out is only warned of; one that it made up raises `Unproved`."""
    for name, logs in shown.items():
        there = {classify.place(one): (one["topics"], one["data"]) for one in found[name]}
        for one in logs:
            if there.get(classify.place(one)) != (one["topics"], one["data"]):
                raise Unproved(f"A log was shown at {classify.place(one)} that its block's receipts do not hold.")
        missing = there.keys() - {classify.place(one) for one in logs}
        if missing:
            log.warning("log_query_incomplete", kind=name, missing=len(missing), first=min(missing))


def _shares(
    chain: Chain,
    endpoint: Endpoint,
    known: Block,
    known_shares: int | None,
    headers: Sequence[Any],
    rebased_in: Sequence[int],
) -> dict[int, int | None]:
    """The operator's shares at `known`, at the end, and at the block before each rebase.

    None where the node keeps no state that old; the sum of the logs then stands in for it, and is checked against the next
    state that the node keeps."""
    blocks = {known.number: known, **{integer(header["number"]): read_block(header) for header in headers}}
    last = integer(headers[-1]["number"])
    found: dict[int, int | None] = {} if known_shares is None else {known.number: known_shares}
    wanted = sorted({known.number, last, *(number - 1 for number in rebased_in)} - found.keys())
    calls = [chain.call(chain.steth, "sharesOf", [chain.operator], blocks[number]) for number in wanted]
    results = endpoint.batch([(call.method, call.params) for call in calls])
    for number, call, result in zip(wanted, calls, results, strict=True):
        old = isinstance(result, RpcError) and result.trouble is Trouble.PRUNED
        if old and number != known.number:
            found[number] = None
        elif isinstance(result, RpcError):
            raise result
        else:  # before Lido was deployed no address had shares of it
            found[number] = 0 if result == "0x" else decoded(call, result)
    return found


def _rebases(
    rebased: Sequence[Any], flows: Sequence[Item], shares: Mapping[int, int | None], before: int
) -> list[Item]:
    """Each rebase with the operator's shares just before it: those at the end of the block before, asked of the chain,
    and the flows of its own block that stand before it."""
    items = []
    for one in rebased:
        block, index = classify.place(one)
        at_end = before + sum(flow.moved for flow in flows if flow.block_number < block)
        told = shares[block - 1]
        if told is not None and told != at_end:
            raise Unproved(
                f"The operator held {told} shares at block {block - 1}, and the logs up to it make {at_end}."
            )
        same_block = sum(flow.moved for flow in flows if flow.block_number == block and flow.log_index < index)
        items.append(classify.rebase(one, at_end + same_block))
    return items
