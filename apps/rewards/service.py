"""The rules of the reward index and its transactions. The arithmetic is `index_math`, the SQL is `store`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import structlog
from sqlalchemy.orm import Session

from apps.common.append_only import Proof
from apps.common.database import Sessions, transaction
from apps.common.errors import InvalidInput
from apps.common.idempotency import (
    Answer,
    claim_batch,
    differing_fields,
    dumps,
    raise_reused,
    run_once,
    store_item_answers,
)
from apps.common.wire import time_text
from apps.rewards import index_math, store
from apps.rewards.errors import InsufficientParked, InsufficientStake, LossExceedsPosition, NothingStaked
from apps.rewards.index_math import PoolState
from apps.rewards.models import MessageKey
from apps.rewards.store import StakeDelta

MAX_DELTAS = 10_000
MAX_BATCHED_CLAIMS = 1_000  # each is an event written by itself
# A settlement's name (`<message_id>:settle:<n>`) goes on into names of movements (`…:cut:<request id>`), which must
# still be message ids of at most 200 characters.
_LONGEST_PREFIX = 140
_DELTA_ANSWER = dumps({"applied": 1, "replayed": 0})

log = structlog.get_logger(__name__)


class RewardsService:
    """What the routes call. Every writing method is one transaction that locks the pool's row first."""

    def __init__(self, sessions: Sessions, proof: Proof, fee_bps: int, default_pool_id: str) -> None:
        self.sessions = sessions
        self._proof = proof
        self.default_pool_id = default_pool_id
        self._fee_bps = fee_bps

    def accrue(self, *, message_id: str, pool_id: str, new_rewards_wei: int, source: str) -> Answer:
        """Spread a signed reward over the pool's weight. Returns an `accrual`.

        A gain's cost does not depend on the number of positions. A loss reads them all, for what they cannot bear is
        parked, and a great one is settled into all of them in the same transaction. Refuses with `AmountOutOfRange`.
        """
        request = {"pool_id": pool_id, "new_rewards_wei": str(new_rewards_wei), "source": source}

        def work(session: Session) -> dict[str, Any]:
            before = store.lock_pool(session, pool_id)
            fall = _bearable_fall(session, pool_id, before, new_rewards_wei)
            pool, parts = index_math.accrue(before, new_rewards_wei, self._fee_bps, fall)
            event = {"kind": "accrual", "source": source, "new_rewards_wei": new_rewards_wei, "fee_bps": self._fee_bps}
            return _spread(session, message_id, pool_id, before, pool, parts, event)

        return self._once("accruals", message_id, request, work)

    def release_parked(self, *, message_id: str, pool_id: str, amount_wei: int) -> Answer:
        """Hand parked wei, a gain or a loss, to the positions of today, without another fee.

        Returns an `accrual` of source ``parked``. Its `new_rewards_wei` is 0 and its `parked_wei` is minus the amount:
        nothing new came, so sums over all accruals stay true. Refuses with `NothingStaked`, `InsufficientParked`,
        `LossExceedsPosition`; a negative amount where no loss is parked is `InvalidInput`.
        """
        request = {"pool_id": pool_id, "amount_wei": str(amount_wei)}

        def work(session: Session) -> dict[str, Any]:
            before = store.lock_pool(session, pool_id)
            if amount_wei < 0 <= before.parked:
                raise InvalidInput(errors={"amount_wei": ["Must be at least 1: no loss is parked."]})
            fall = _bearable_fall(session, pool_id, before, amount_wei)
            try:
                pool, parts = index_math.release(before, amount_wei, fall)
            except index_math.NothingStaked as error:
                raise NothingStaked from error
            except index_math.NotParked as error:
                raise InsufficientParked(f"{before.parked} wei are parked in this pool.") from error
            except index_math.LossExceedsPosition as error:
                most = index_math.bearable_loss(before, fall or 0)
                raise LossExceedsPosition(f"The positions of today can bear a loss of {most} wei at most.") from error
            event = {"kind": "release", "source": "parked", "new_rewards_wei": 0, "fee_bps": 0}
            return _spread(session, message_id, pool_id, before, pool, parts, event)

        return self._once("parked/release", message_id, request, work)

    def claim(self, *, message_id: str, pool_id: str, user_id: str) -> Answer:
        """Move a user's whole pending wei, signed, into their stake. Returns a `claim`; 0 is a claim, too.

        Refuses with `LossExceedsPosition`.
        """

        def work(session: Session) -> dict[str, Any]:
            (claimed,) = _claim(session, pool_id, {message_id: user_id})
            return claimed

        return self._once("claims", message_id, {"pool_id": pool_id, "user_id": user_id}, work)

    def claim_batch(self, *, pool_id: str, claims: Sequence[Mapping[str, Any]]) -> Answer:
        """`claim` for up to `MAX_BATCHED_CLAIMS` users, all or nothing, in the given order; its cost is one call.

        A claim whose message_id is known counts as replayed. A refusal (`LossExceedsPosition`, naming the user) uses up
        no id.
        """
        items = _by_message_id(claims, lambda item: {"pool_id": pool_id, "user_id": item["user_id"]})
        self._proof.require()
        with transaction(self.sessions) as session, store.amounts_in_range():
            known = claim_batch(session, MessageKey, endpoint="claims", items=items)
            fresh = {name: item["user_id"] for name, item in items.items() if name not in known}
            answers = _claim(session, pool_id, fresh) if fresh else []
            store_item_answers(session, MessageKey, [(answer["message_id"], dumps(answer)) for answer in answers])
        answer = {"claimed": len(fresh), "replayed": len(claims) - len(fresh)}
        return Answer(201, dumps(answer), replayed=bool(claims) and not fresh)

    def change_stakes(self, *, pool_id: str, deltas: Sequence[Mapping[str, Any]]) -> Answer:
        """Change up to `MAX_DELTAS` positions, all or nothing; several deltas of one user apply in the given order.

        A delta whose message_id is known counts as replayed. A refusal (`InsufficientStake`, naming the user) uses up
        no id.
        """
        items = _by_message_id(
            deltas,
            lambda delta: {
                "pool_id": pool_id,
                "user_id": delta["user_id"],
                "staked_delta_wei": str(delta["staked_delta_wei"]),
                "exiting_delta_wei": str(delta["exiting_delta_wei"]),
            },
        )
        self._proof.require()
        with transaction(self.sessions) as session, store.amounts_in_range():
            known = claim_batch(session, MessageKey, endpoint="stake-deltas", items=items, answer=_DELTA_ANSWER)
            fresh = {message_id: items[message_id] for message_id in items if message_id not in known}
            if fresh:
                _apply_deltas(session, pool_id, fresh)
        answer = {"applied": len(fresh), "replayed": len(deltas) - len(fresh)}
        return Answer(201, dumps(answer), replayed=bool(deltas) and not fresh)

    def _once(
        self, endpoint: str, message_id: str, request: Mapping[str, str], work: Callable[[Session], dict[str, Any]]
    ) -> Answer:
        def guarded(session: Session) -> dict[str, Any]:
            with store.amounts_in_range():
                return work(session)

        self._proof.require()
        return run_once(
            self.sessions, MessageKey, message_id=message_id, endpoint=endpoint, request=request, work=guarded
        )


def _spread(
    session: Session,
    message_id: str,
    pool_id: str,
    before: PoolState,
    pool: PoolState,
    parts: index_math.Accrued,
    event: Mapping[str, Any],
) -> dict[str, Any]:
    """Write down what was distributed or parked, and settle a loss where that is due."""
    event_id, created_at = store.insert_event(
        session,
        pool_id=pool_id,
        message_id=message_id,
        fee_wei=parts.fee,
        distributed_wei=parts.distributed,
        parked_wei=parts.parked,
        weight_wei=before.weight,
        acc_reward_per_share=pool.index,
        **event,
    )
    answer = {
        "id": event_id,
        "message_id": message_id,
        "pool_id": pool_id,
        "source": event["source"],
        "new_rewards_wei": str(event["new_rewards_wei"]),
        "fee_wei": str(parts.fee),
        "distributed_wei": str(parts.distributed),
        "parked_wei": str(parts.parked),
        "acc_reward_per_share": str(pool.index),
        "weight_wei": str(before.weight),
        "created_at": time_text(created_at),
    }
    if parts.settles and parts.parked < 0:
        log.warning("loss_parked", pool_id=pool_id, message_id=message_id, parked_wei=str(parts.parked))
    if parts.settles:
        prefix = f"{message_id if len(message_id) <= _LONGEST_PREFIX else f'accrual:{event_id}'}:settle:"
        pool = _settle_loss(session, pool_id, pool, prefix)
    store.save_pool(session, pool_id, pool)
    return answer


def _bearable_fall(session: Session, pool_id: str, pool: PoolState, amount_wei: int) -> int | None:
    """For a loss that somebody has to bear; nothing else reads the positions. The pool is locked.

    A loss of a few wei is held against them, too: the reading is one statement that writes nothing, and losses are
    rare. Left out for small ones, these could take a position below zero, where no claim, settlement or great loss
    gets past it.
    """
    return store.bearable_fall(session, pool_id, pool.index) if amount_wei < 0 < pool.weight else None


def _settle_loss(session: Session, pool_id: str, pool: PoolState, prefix: str) -> PoolState:
    """Move every position's pending into its principal, so that stake after a loss is what it is worth."""
    settled = store.settle_all(session, pool_id, pool.index, prefix)
    log.info("loss_settled", pool_id=pool_id, events=f"{prefix}*", positions=settled.positions)
    return replace(
        pool,
        weight=pool.weight + settled.claimed,
        claimed=pool.claimed + settled.claimed,
        remainder=pool.remainder + settled.returned_scaled,
    )


def _by_message_id(
    given: Sequence[Mapping[str, Any]], canonical: Callable[[Mapping[str, Any]], dict[str, str]]
) -> dict[str, dict[str, str]]:
    """Canonical requests by message_id, in the given order; the same id twice with one body is one item."""
    items: dict[str, dict[str, str]] = {}
    for item in given:
        request = canonical(item)
        message_id = item["message_id"]
        if message_id in items and items[message_id] != request:
            raise_reused(differing_fields(request, items[message_id]), message_id)
        items[message_id] = request
    return items


def _claim(session: Session, pool_id: str, users: Mapping[str, str]) -> list[dict[str, Any]]:
    """Claim for each user, by message_id; returns the `claim` of each. Raises `LossExceedsPosition`."""
    pool = store.lock_pool(session, pool_id)
    positions = store.lock_positions(session, pool_id, users.values())
    answers = []
    for message_id, user_id in users.items():
        try:
            pool, positions[user_id], moved = index_math.claim(pool, positions[user_id])
        except index_math.LossExceedsPosition as error:
            raise LossExceedsPosition(f"{user_id} owes more than the position is worth.") from error
        _, created_at = store.insert_event(
            session,
            pool_id=pool_id,
            kind="claim",
            message_id=message_id,
            user_id=user_id,
            staked_delta_wei=moved.staked_delta,
            exiting_delta_wei=moved.exiting_delta,
            claimed_wei=moved.claimed,
            acc_reward_per_share=pool.index,
        )
        answers.append(
            {
                "message_id": message_id,
                "pool_id": pool_id,
                "user_id": user_id,
                "claimed_wei": str(moved.claimed),
                "created_at": time_text(created_at),
            }
        )
    store.save_positions(session, pool_id, positions)
    store.save_pool(session, pool_id, pool)
    return answers


def _apply_deltas(session: Session, pool_id: str, items: Mapping[str, Mapping[str, str]]) -> None:
    """Apply deltas in the given order. Raises `InsufficientStake`."""
    deltas = [
        StakeDelta(message_id, item["user_id"], int(item["staked_delta_wei"]), int(item["exiting_delta_wei"]))
        for message_id, item in items.items()
    ]
    pool = store.lock_pool(session, pool_id)
    positions = store.lock_positions(session, pool_id, [delta.user_id for delta in deltas])
    for delta in deltas:
        position = positions[delta.user_id]
        try:
            pool, positions[delta.user_id] = index_math.change_stake(pool, position, delta.staked, delta.exiting)
        except index_math.StakeBelowZero as error:
            pending = index_math.pending_wei(position, pool.index)
            raise InsufficientStake(
                f"{delta.user_id} holds {position.staked} wei staked and {position.exiting} wei exiting, with {pending}"
                f" wei pending; {delta.message_id} takes more than that. Nothing of the batch was applied."
            ) from error
    store.save_positions(session, pool_id, positions)
    store.insert_stake_deltas(session, pool_id, pool.index, deltas)
    store.save_pool(session, pool_id, pool)
