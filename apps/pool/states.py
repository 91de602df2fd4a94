"""Every status of a request, a batch, the walk and what ops decide: what it means, what may follow, what is an end.

Each set of statuses anywhere else derives from these tables. The pool's database holds the same tables in a trigger
(`migrations/pool`), which refuses every other change, and any change of a row that has ended, to the tables' owner too:
a request that was paid and is set back to `queued` would be paid a second time, with other users' money.
"""

from collections.abc import Mapping
from typing import TypeVar

from apps.clients.shapes.relayer import TransactionStatus
from apps.common.states import Status
from apps.flow.runner import PARKED


class RequestKind(Status):
    STAKE = "stake", "The user's ETH becomes stETH of the operator, in one submit with others'."
    UNSTAKE = "unstake", "The user's stETH goes to Lido's withdrawal queue, and comes back as ETH."
    REWARD_CLAIM = "reward_claim", "The user's settled rewards become principal of their stake."


class RequestStatus(Status):
    RESERVING = "reserving", "The ledger is asked to set the amount aside."
    SETTLING = "settling", "The reward index is asked what the user has earned."
    QUEUED = "queued", "Set aside; waits for its batch. The only status in which the user may cancel."
    BATCHED = "batched", "Part of a batch that is being prepared."
    SUBMITTING = "submitting", "The batch's submit is built and on its way to the relayer."
    CONFIRMING = "confirming", "The relayer has the submit; the walk has not met it yet."
    REQUESTING = "requesting", "Out of the reward index; the withdrawal is being requested from Lido."
    WAITING = "waiting", "Lido holds the withdrawal; it pays in its own order."
    CLAIMING = "claiming", "Lido has paid; the claim that brings the ETH to custody is on its way."
    COMPLETED = "completed", "Done, and in the books."
    REJECTED = "rejected", "Refused by ledger or index; nothing was moved."
    CANCELLED = "cancelled", "Taken back by the user; all of it was moved back."
    FAILED = "failed", "It could not be done; all of it was moved back."
    NEEDS_ATTENTION = PARKED, "It cannot heal by itself: ops decide."


class BatchKind(Status):
    STAKE = "stake", "Stakes that share one submit."
    UNSTAKE = "unstake", "Unstakes that share one request to Lido's queue."
    CLAIM = "claim", "Withdrawal NFTs that are claimed together."


class BatchStatus(Status):
    BATCHED = "batched", "Opened; funds, the index or the claim are being prepared."
    SUBMITTING = "submitting", "The submit is built and stored."
    CONFIRMING = "confirming", "The relayer has the submit; the walk has not met it yet."
    REQUESTING = "requesting", "Out of the reward index; the withdrawal is being requested."
    CLAIMING = "claiming", "The claim is built; the walk has not met its logs yet."
    COMPLETED = "completed", "The walk has booked what it did on chain."
    FAILED = "failed", "It did nothing on chain; its requests went back to where they waited, or ended."
    NEEDS_ATTENTION = PARKED, "It cannot heal by itself: ops decide."


class WalkStatus(Status):
    WALKING = "walking", "Books what the chain holds, in its order, up to the money horizon."
    HALTED = "halted", "Cannot go on without ops or without a cause being mended; see its halt."


class ResolutionStatus(Status):
    PROPOSED = "proposed", "One person has said it; a second one is asked for."
    APPROVED = "approved", "Decided; the walk or the batch has not acted on it yet."
    REJECTED = "rejected", "Taken back before anything was done about it."
    APPLIED = "applied", "The walk or the batch has acted on it."


__all__ = [
    "BATCH_OPEN",
    "BATCH_TERMINAL",
    "FIRST_STATUS",
    "REQUEST_TERMINAL",
    "SIGNED_AND_OPEN",
    "UNDER_WAY",
    "WITHOUT_EFFECT",
    "BatchKind",
    "BatchStatus",
    "RequestKind",
    "RequestStatus",
    "ResolutionStatus",
    "TransactionStatus",
    "WalkStatus",
    "batch_transitions",
    "request_transitions",
]

K = TypeVar("K", bound=Status)
S = TypeVar("S", bound=Status)
R, B, T = RequestStatus, BatchStatus, TransactionStatus

_BEFORE_BATCH = {
    R.RESERVING: {R.QUEUED, R.REJECTED},
    R.QUEUED: {R.BATCHED, R.CANCELLED},
}
# What may follow, for each kind. Each open status may be parked as well, and goes back from there to where it stopped, or
# to the end that the walk meets on chain meanwhile: see `transitions`.
_REQUESTS: dict[RequestKind, dict[RequestStatus, set[RequestStatus]]] = {
    RequestKind.STAKE: {
        **_BEFORE_BATCH,
        R.BATCHED: {R.SUBMITTING, R.QUEUED},
        R.SUBMITTING: {R.CONFIRMING, R.COMPLETED},
        R.CONFIRMING: {R.COMPLETED, R.QUEUED, R.FAILED},
    },
    RequestKind.UNSTAKE: {
        **_BEFORE_BATCH,
        R.BATCHED: {R.REQUESTING, R.QUEUED, R.FAILED},
        R.REQUESTING: {R.WAITING, R.QUEUED, R.FAILED},
        R.WAITING: {R.CLAIMING, R.COMPLETED},
        R.CLAIMING: {R.WAITING, R.COMPLETED},
    },
    RequestKind.REWARD_CLAIM: {R.SETTLING: {R.COMPLETED}},
}
_BATCHES: dict[BatchKind, dict[BatchStatus, set[BatchStatus]]] = {
    BatchKind.STAKE: {
        B.BATCHED: {B.SUBMITTING, B.FAILED},
        B.SUBMITTING: {B.CONFIRMING, B.COMPLETED},
        B.CONFIRMING: {B.COMPLETED, B.FAILED},
    },
    BatchKind.UNSTAKE: {
        B.BATCHED: {B.REQUESTING, B.FAILED},
        B.REQUESTING: {B.COMPLETED, B.FAILED},
    },
    BatchKind.CLAIM: {
        B.BATCHED: {B.CLAIMING, B.COMPLETED, B.FAILED},
        B.CLAIMING: {B.COMPLETED, B.FAILED},
    },
}

FIRST_STATUS = {
    RequestKind.STAKE: R.RESERVING,
    RequestKind.UNSTAKE: R.RESERVING,
    RequestKind.REWARD_CLAIM: R.SETTLING,
}
REQUEST_TERMINAL = frozenset({R.COMPLETED, R.REJECTED, R.CANCELLED, R.FAILED})
BATCH_TERMINAL = frozenset({B.COMPLETED, B.FAILED})
# Open, and not parked: what holds up a parked batch is its own.
BATCH_OPEN = frozenset(B) - BATCH_TERMINAL - {B.NEEDS_ATTENTION}

# Of a batch's transactions, as the relayer answers them: may still be mined; and ended for good without an effect, so that the
# batch may try again.
UNDER_WAY = frozenset({T.QUEUED, T.SIGNED, T.BROADCAST, T.MINED})
SIGNED_AND_OPEN = UNDER_WAY - {T.QUEUED}
WITHOUT_EFFECT = frozenset({T.REVERTED, T.REJECTED, T.EXPIRED, T.CANCELLED})


def request_transitions() -> dict[tuple[RequestKind, RequestStatus], frozenset[RequestStatus]]:
    """What may follow each status of a request, by its kind. A row may also keep its status."""
    return _with_parking(_REQUESTS, R.NEEDS_ATTENTION, REQUEST_TERMINAL - {R.REJECTED, R.CANCELLED})


def batch_transitions() -> dict[tuple[BatchKind, BatchStatus], frozenset[BatchStatus]]:
    """What may follow each status of a batch, by its kind. A row may also keep its status."""
    return _with_parking(_BATCHES, B.NEEDS_ATTENTION, BATCH_TERMINAL)


def _with_parking(
    table: Mapping[K, Mapping[S, set[S]]], parked: S, ends_of_parked: frozenset[S]
) -> dict[tuple[K, S], frozenset[S]]:
    found: dict[tuple[K, S], frozenset[S]] = {}
    for kind, nexts in table.items():
        for status, following in nexts.items():
            found[kind, status] = frozenset(following | {parked})
        reached = {status for following in nexts.values() for status in following}
        found[kind, parked] = frozenset(nexts) | (ends_of_parked & reached)
    return found
