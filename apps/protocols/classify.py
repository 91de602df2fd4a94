"""What each log means for the operator's shares. Pure.

Lido announces one operation in several logs of one transaction. They belong together by transaction and by what they
say; in which order a version of the protocol emits them, or what it emits in between, does not matter here.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from apps.clients.shapes.history import RebaseTotals
from apps.ethereum.contracts import LIDO, QUEUE
from apps.ethereum.logs import integer
from apps.protocols.items import Item

_SUBMITTED, _TRANSFER, _TRANSFER_SHARES, _TOKEN_REBASED = (
    LIDO.events[name] for name in ("Submitted", "Transfer", "TransferShares", "TokenRebased")
)
_REQUESTED, _CLAIMED = QUEUE.events["WithdrawalRequested"], QUEUE.events["WithdrawalClaimed"]

ZERO_TOPIC = "0x" + "0" * 64
REQUESTOR = 2  # the topic of WithdrawalRequested that names who paid the stETH; the NFT's owner is another topic


def flows(
    shares: Iterable[Any],
    transfers: Iterable[Any],
    submitted: Iterable[Any],
    requested: Iterable[Any],
    *,
    me: str,
    queue: str,
) -> list[Item]:
    """Items of the operator's share transfers, in chain order.

    A transfer that moves nothing makes no item: one to itself, or of 0 shares. Any sender can make the latter in the
    operator's name, as `transferFrom(operator, …, 0)` asks for no allowance; it must neither halt the walk nor be taken
    for the shares of a request. Only where 0 shares belong to the operator's own submit do they make an item.

    All logs given name the operator; `me` and `queue` are topics. A request that another address paid for in the
    operator's name is not the operator's. A request of the operator's shares in another owner's name has no log among
    `requested`, so it shows as shares that left.
    """
    moves = [log for log in _unique(shares) if _parties(log)[0] != _parties(log)[1]]
    stakes = _same_order([log for log in moves if _parties(log) == (ZERO_TOPIC, me)], _unique(submitted))
    own = [log for log in _unique(requested) if log["topics"][REQUESTOR].lower() == me]
    requests = _requests([log for log in moves if _parties(log) == (me, queue) and _moves_shares(log)], own)
    values = _values(moves, _unique(transfers))
    return [_move(log, stakes, requests, values, me) for log in moves if _moves_shares(log) or place(log) in stakes]


def rebase(log: Any, operator_shares: int) -> Item:
    """A TokenRebased with its reward: S * post ether // post shares - S * pre ether // pre shares, signed.

    This is how Lido's own rewards backend computes a holder's reward; ether delta alone is wrong in size and sign.
    """
    elapsed, pre_shares, pre_ether, post_shares, post_ether, _fee_shares = _TOKEN_REBASED.read(log)
    totals = RebaseTotals(
        time_elapsed_sec=elapsed,
        pre_total_shares=pre_shares,
        pre_total_ether_wei=pre_ether,
        post_total_shares=post_shares,
        post_total_ether_wei=post_ether,
        operator_shares=operator_shares,
    )
    reward = operator_shares * post_ether // post_shares - operator_shares * pre_ether // pre_shares
    return _item(log, "rebase", reward_wei=reward, rebase=totals)


def claim(log: Any) -> Item:
    """A WithdrawalClaimed of the operator's."""
    return _item(log, "claim", amount_wei=_CLAIMED.read(log)[0], withdrawal_id=integer(log["topics"][1]))


def place(log: Any) -> tuple[int, int]:
    """Block and index of a log: items are in this order."""
    return integer(log["blockNumber"]), integer(log["logIndex"])


def _move(
    log: Any,
    stakes: Mapping[tuple[int, int], Any],
    requests: Mapping[tuple[int, int], Any],
    values: Mapping[tuple[int, int], int],
    me: str,
) -> Item:
    at, shares = place(log), _shares(log)
    if at in stakes:
        return _item(log, "submit", shares=shares, amount_wei=_SUBMITTED.read(stakes[at])[0])
    if at in requests:
        request = requests[at]
        withdrawal_id = integer(request["topics"][1])
        amount_wei = _REQUESTED.read(request)[0]
        return _item(log, "request", shares=shares, amount_wei=amount_wei, withdrawal_id=withdrawal_id)
    kind = "foreign_in" if _parties(log)[1] == me else "foreign_out"
    return _item(log, kind, shares=shares, amount_wei=values.get(at, 0))


def _item(log: Any, kind: str, **rest: Any) -> Item:
    block_number, log_index = place(log)
    return Item(block_number, log_index, log["blockHash"], log["transactionHash"], kind, **rest)


def _requests(moves: list[Any], requested: list[Any]) -> dict[tuple[int, int], Any]:
    """Each WithdrawalRequested with the share transfer before it in its transaction that carried its shares."""
    by_transaction: dict[str, list[Any]] = {}
    for move in moves:
        by_transaction.setdefault(move["transactionHash"], []).append(move)
    found: dict[tuple[int, int], Any] = {}
    for request in requested:
        shares = _REQUESTED.read(request)[1]
        before = [
            move
            for move in by_transaction.get(request["transactionHash"], [])
            if place(move) < place(request) and place(move) not in found
        ]
        if before:
            found[place(max(before, key=lambda move: (_shares(move) == shares, place(move))))] = request
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
            found[place(move)] = _TRANSFER.read(queue.pop(0))[0]
    return found


def _by_parties(logs: Iterable[Any]) -> dict[tuple[str, str, str], list[Any]]:
    """Logs by (transaction, from, to), each list in chain order."""
    found: dict[tuple[str, str, str], list[Any]] = {}
    for log in logs:
        found.setdefault((log["transactionHash"], *_parties(log)), []).append(log)
    return found


def _moves_shares(log: Any) -> bool:
    return _shares(log) != 0


def _shares(log: Any) -> int:
    return int(_TRANSFER_SHARES.read(log)[0])


def _parties(log: Any) -> tuple[str, str]:
    return log["topics"][1].lower(), log["topics"][2].lower()


def _unique(logs: Iterable[Any]) -> list[Any]:
    """In chain order, each once: a log may answer two queries."""
    by_place = {place(log): log for log in logs}
    return [by_place[at] for at in sorted(by_place)]
