"""What may follow each status of a request, a batch, the walk and what ops decide; what is an end; what happens next.

The names and their meanings are in `apps.clients.shapes.pool_states`, as callers see them. Each set of statuses anywhere
else derives from these tables. The pool's database holds the same tables in a trigger (`migrations/pool`), which refuses
every other change, and any change of a row that has ended, to the tables' owner too: a request that was paid and is set
back to `queued` would be paid a second time, with other users' money.
"""

from collections.abc import Mapping
from typing import TypeVar

from apps.clients.shapes.pool_states import (
    BatchKind,
    BatchStatus,
    RequestKind,
    RequestStatus,
    ResolutionStatus,
    WalkStatus,
)
from apps.clients.shapes.relayer import TransactionStatus
from apps.common.states import Status

__all__ = [
    "BATCH_OPEN",
    "BATCH_TERMINAL",
    "FIRST_STATUS",
    "NEXT_STEPS",
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
    RequestKind.PAYOUT: {
        R.RESERVING: {R.APPROVING, R.SENDING, R.REJECTED},
        R.APPROVING: {R.SENDING, R.CANCELLED, R.FAILED},
        R.SENDING: {R.CONFIRMING, R.COMPLETED, R.CANCELLED, R.FAILED},
        R.CONFIRMING: {R.COMPLETED, R.CANCELLED, R.FAILED},
    },
    RequestKind.DEPOSIT: {R.BOOKING: {R.COMPLETED, R.REJECTED}},
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
    RequestKind.PAYOUT: R.RESERVING,
    RequestKind.DEPOSIT: R.BOOKING,
}
# What happens next, by kind and status: what the pool's `next.step` says.
NEXT_STEPS = {
    (RequestKind.STAKE, R.RESERVING): "reserve",
    (RequestKind.STAKE, R.QUEUED): "batch",
    (RequestKind.STAKE, R.BATCHED): "submit",
    (RequestKind.STAKE, R.SUBMITTING): "mine",
    (RequestKind.STAKE, R.CONFIRMING): "confirm",
    (RequestKind.UNSTAKE, R.RESERVING): "reserve",
    (RequestKind.UNSTAKE, R.QUEUED): "batch",
    (RequestKind.UNSTAKE, R.BATCHED): "request",
    (RequestKind.UNSTAKE, R.REQUESTING): "confirm",
    (RequestKind.UNSTAKE, R.WAITING): "finalize",
    (RequestKind.UNSTAKE, R.CLAIMING): "pay",
    (RequestKind.REWARD_CLAIM, R.SETTLING): "settle",
    (RequestKind.PAYOUT, R.RESERVING): "reserve",
    (RequestKind.PAYOUT, R.APPROVING): "approve",
    (RequestKind.PAYOUT, R.SENDING): "send",
    (RequestKind.PAYOUT, R.CONFIRMING): "confirm",
    (RequestKind.DEPOSIT, R.BOOKING): "book",
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
