"""What each log means for the operator's shares. Pure.

Lido announces one operation in several logs of one transaction. They belong together by transaction and by what they
say; in which order a version of the protocol emits them, or what it emits in between, does not matter here.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from apps.protocols.events import integer, words

ZERO_TOPIC = "0x" + "0" * 64
REQUESTOR = 2  # the topic of WithdrawalRequested that names who paid the stETH; the owner of the NFT is another


def flows(
    shares: Iterable[Any],
    transfers: Iterable[Any],
    submitted: Iterable[Any],
    requested: Iterable[Any],
    *,
    me: str,
    queue: str,
) -> list[dict[str, Any]]:
    """Rows for the operator's share transfers, in chain order.

    A transfer that moves nothing makes no row: one to itself, or of 0 shares. Anybody may send the latter in the
    operator's name, as `transferFrom(operator, anybody, 0)` asks for no allowance; it must neither halt the walk nor be
    taken for the shares of a request. Only where 0 shares belong to the operator's own submit do they make a row.

    All logs given name the operator; `me` and `queue` are topics. A request that somebody else paid for in the operator's
    name is not the operator's. A request of the operator's shares in somebody else's name has no log among `requested`,
    so it shows as shares that left.
    """
    moves = [log for log in _unique(shares) if _parties(log)[0] != _parties(log)[1]]
    stakes = _same_order([log for log in moves if _parties(log) == (ZERO_TOPIC, me)], _unique(submitted))
    own = [log for log in _unique(requested) if log["topics"][REQUESTOR].lower() == me]
    requests = _requests([log for log in moves if _parties(log) == (me, queue) and _moves_shares(log)], own)
    values = _values(moves, _unique(transfers))
    return [_row(log, stakes, requests, values, me) for log in moves if _moves_shares(log) or place(log) in stakes]


def rebase(log: Any, operator_shares: int) -> dict[str, Any]:
    """A TokenRebased with its reward: S * post ether // post shares - S * pre ether // pre shares, signed.

    This is how Lido's own rewards backend computes a holder's reward; ether delta alone is wrong in size and sign.
    """
    elapsed, pre_shares, pre_ether, post_shares, post_ether, _fee_shares = words(log)
    reward = operator_shares * post_ether // post_shares - operator_shares * pre_ether // pre_shares
    totals = {
        "time_elapsed_sec": elapsed,
        "pre_total_shares": str(pre_shares),
        "pre_total_ether_wei": str(pre_ether),
        "post_total_shares": str(post_shares),
        "post_total_ether_wei": str(post_ether),
        "operator_shares": str(operator_shares),
    }
    return {**base(log), "kind": "rebase", "shares": None, "reward_wei": reward, "rebase": totals}


def claim(log: Any) -> dict[str, Any]:
    return {**base(log), "kind": "claim", "amount_wei": words(log)[0], "withdrawal_id": integer(log["topics"][1])}


def base(log: Any) -> dict[str, Any]:
    return {
        "block_number": integer(log["blockNumber"]),
        "log_index": integer(log["logIndex"]),
        "block_hash": log["blockHash"],
        "tx_hash": log["transactionHash"],
    }


def place(log: Any) -> tuple[int, int]:
    return integer(log["blockNumber"]), integer(log["logIndex"])


def _row(
    log: Any,
    stakes: Mapping[tuple[int, int], Any],
    requests: Mapping[tuple[int, int], Any],
    values: Mapping[tuple[int, int], int],
    me: str,
) -> dict[str, Any]:
    row = {**base(log), "shares": words(log)[0]}
    at = place(log)
    if at in stakes:
        return {**row, "kind": "submit", "amount_wei": words(stakes[at])[0]}
    if at in requests:
        request = requests[at]
        withdrawal_id = integer(request["topics"][1])
        return {**row, "kind": "request", "amount_wei": words(request)[0], "withdrawal_id": withdrawal_id}
    kind = "foreign_in" if _parties(log)[1] == me else "foreign_out"
    return {**row, "kind": kind, "amount_wei": values.get(at, 0)}


def _requests(moves: list[Any], requested: list[Any]) -> dict[tuple[int, int], Any]:
    """Each WithdrawalRequested with the share transfer before it in its transaction that carried its shares."""
    by_transaction: dict[str, list[Any]] = {}
    for move in moves:
        by_transaction.setdefault(move["transactionHash"], []).append(move)
    found: dict[tuple[int, int], Any] = {}
    for request in requested:
        shares = words(request)[1]
        before = [
            move
            for move in by_transaction.get(request["transactionHash"], [])
            if place(move) < place(request) and place(move) not in found
        ]
        if before:
            found[place(max(before, key=lambda move: (words(move)[0] == shares, place(move))))] = request
    return found


def _same_order(moves: list[Any], partners: list[Any]) -> dict[tuple[int, int], Any]:
    """In each transaction the first move with the first partner, and so on."""
    waiting: dict[str, list[Any]] = {}
    for partner in partners:
        waiting.setdefault(partner["transactionHash"], []).append(partner)
    found = {}
    for move in moves:
        queue = waiting.get(move["transactionHash"])
        if queue:
            found[place(move)] = queue.pop(0)
    return found


def _values(moves: list[Any], transfers: list[Any]) -> dict[tuple[int, int], int]:
    """The stETH of each move: its Transfer has the same parties in the same transaction, in the same order."""
    waiting = _by_parties(transfers)
    found = {}
    for move in moves:
        queue = waiting.get((move["transactionHash"], *_parties(move)))
        if queue:
            found[place(move)] = words(queue.pop(0))[0]
    return found


def _by_parties(logs: Iterable[Any]) -> dict[tuple[str, str, str], list[Any]]:
    """Logs by (transaction, from, to), each list in chain order."""
    found: dict[tuple[str, str, str], list[Any]] = {}
    for log in logs:
        found.setdefault((log["transactionHash"], *_parties(log)), []).append(log)
    return found


def _moves_shares(log: Any) -> bool:
    return words(log)[0] != 0


def _parties(log: Any) -> tuple[str, str]:
    return log["topics"][1].lower(), log["topics"][2].lower()


def _unique(logs: Iterable[Any]) -> list[Any]:
    """In chain order, each once: a log may answer two queries."""
    by_place = {place(log): log for log in logs}
    return [by_place[at] for at in sorted(by_place)]
