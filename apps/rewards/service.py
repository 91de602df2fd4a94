"""The rules of the reward index and its transactions. The arithmetic is `index_math`, the SQL is `store`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from sqlalchemy.orm import Session

from apps.clients.shapes.common import Audit
from apps.clients.shapes.rewards import (
    Accrual,
    Claim,
    ClaimsAnswer,
    NewAccrual,
    NewClaim,
    NewClaimBatch,
    NewRelease,
    NewStakeDeltas,
    StakeDelta,
    StakeDeltasAnswer,
)
from apps.common.append_only import Proof
from apps.common.database import Sessions, transaction
from apps.common.errors import InvalidInput
from apps.common.idempotency import (
    Answer,
    differing_fields,
    dumps,
    raise_reused,
    register_batch,
    run_once,
    store_item_answers,
)
from apps.common.shapes import dump
from apps.rewards import index_math, store
from apps.rewards.audits import run_audit
from apps.rewards.errors import InsufficientParked, InsufficientStake, LossExceedsPosition, NothingStaked
from apps.rewards.models import MessageKey
from apps.rewards.spreading import Cause, bearable_fall, spread

_DELTA_ANSWER = dumps(dump(StakeDeltasAnswer(applied=1, replayed=0)))


class _Named(Protocol):
    @property
    def message_id(self) -> str: ...


N = TypeVar("N", bound=_Named)


class RewardsService:
    """Owns the transactions that write. Each locks the pool's row first; nothing is written before `proof` is had."""

    def __init__(self, sessions: Sessions, proof: Proof, fee_bps: int) -> None:
        self._sessions = sessions
        self._proof = proof
        self._fee_bps = fee_bps

    def accrue(self, new: NewAccrual) -> Answer:
        """Spread a signed reward over the pool's weight. The answer is an `Accrual`.

        A gain's cost does not depend on the number of positions. A loss reads them all, for what they cannot bear is
        parked, and a great one is settled into all of them in the same transaction. Refuses with `AmountOutOfRange`.
        """

        def work(session: Session) -> Accrual:
            before = store.lock_pool(session, new.pool_id)
            fall = bearable_fall(session, new.pool_id, before, new.new_rewards_wei)
            pool, parts = index_math.accrue(before, new.new_rewards_wei, self._fee_bps, fall)
            cause = Cause("accrual", new.message_id, new.pool_id, new.source, new.new_rewards_wei, self._fee_bps)
            return spread(session, cause, before, pool, parts)

        return self._once("accruals", new, work)

    def release_parked(self, new: NewRelease) -> Answer:
        """Hand parked wei, a gain or a loss, to the positions of today, without another fee.

        The answer is an `Accrual` of source ``parked``. Its `new_rewards_wei` is 0 and its `parked_wei` is minus the
        amount: nothing new came, so sums over all accruals stay true. Refuses with `NothingStaked`,
        `InsufficientParked`, `LossExceedsPosition`; a negative amount where no loss is parked is `InvalidInput`.
        """

        def work(session: Session) -> Accrual:
            before = store.lock_pool(session, new.pool_id)
            if new.amount_wei < 0 <= before.parked:
                raise InvalidInput(errors={"amount_wei": ["Must be at least 1: no loss is parked."]})
            fall = bearable_fall(session, new.pool_id, before, new.amount_wei)
            try:
                pool, parts = index_math.release(before, new.amount_wei, fall)
            except index_math.NothingStaked as error:
                raise NothingStaked from error
            except index_math.NotParked as error:
                raise InsufficientParked(f"{before.parked} wei are parked in this pool.") from error
            except index_math.LossExceedsPosition as error:
                most = index_math.bearable_loss(before, fall or 0)
                raise LossExceedsPosition(f"The positions of today can bear a loss of {most} wei at most.") from error
            return spread(session, Cause("release", new.message_id, new.pool_id, "parked", 0, 0), before, pool, parts)

        return self._once("parked/release", new, work)

    def claim(self, new: NewClaim) -> Answer:
        """Move a user's whole pending wei, signed, into their stake. The answer is a `Claim`; one of 0 is a claim, too.

        Refuses with `LossExceedsPosition`.
        """

        def work(session: Session) -> Claim:
            (claimed,) = _claim(session, new.pool_id, {new.message_id: new.user_id})
            return claimed

        return self._once("claims", new, work)

    def claim_batch(self, new: NewClaimBatch) -> ClaimsAnswer:
        """`claim` for many users, all or nothing, in the given order; its cost is one call.

        A claim whose message_id is known counts as replayed. A refusal (`LossExceedsPosition`, naming the user) uses up
        no id.
        """
        items = _by_message_id(new.claims)
        self._proof.require()
        with transaction(self._sessions) as session, store.amounts_in_range():
            known = register_batch(session, MessageKey, endpoint="claims", items=_keys(new.pool_id, items.values()))
            fresh = {message_id: item.user_id for message_id, item in items.items() if message_id not in known}
            claims = _claim(session, new.pool_id, fresh) if fresh else []
            store_item_answers(session, MessageKey, [(claim.message_id, dumps(dump(claim))) for claim in claims])
        return ClaimsAnswer(claimed=len(fresh), replayed=len(new.claims) - len(fresh))

    def change_stakes(self, new: NewStakeDeltas) -> StakeDeltasAnswer:
        """Change many positions, all or nothing; several deltas of one user apply in the given order.

        A delta whose message_id is known counts as replayed. A refusal (`InsufficientStake`, naming the user) uses up
        no id.
        """
        items = _by_message_id(new.deltas)
        keys = _keys(new.pool_id, items.values())
        self._proof.require()
        with transaction(self._sessions) as session, store.amounts_in_range():
            known = register_batch(session, MessageKey, endpoint="stake-deltas", items=keys, answer=_DELTA_ANSWER)
            fresh = [item for message_id, item in items.items() if message_id not in known]
            if fresh:
                _apply_deltas(session, new.pool_id, fresh)
        return StakeDeltasAnswer(applied=len(fresh), replayed=len(new.deltas) - len(fresh))

    def audit(self, pool_id: str | None) -> Audit:
        """Replay the log of one pool, or of all of them, compare it with the tables, and keep what was found."""
        return run_audit(self._sessions, pool_id)

    def _once(
        self, endpoint: str, new: NewAccrual | NewRelease | NewClaim, work: Callable[[Session], Accrual | Claim]
    ) -> Answer:
        def guarded(session: Session) -> Mapping[str, Any]:
            with store.amounts_in_range():
                return dump(work(session))

        self._proof.require()
        return run_once(
            self._sessions,
            MessageKey,
            message_id=new.message_id,
            endpoint=endpoint,
            request=_canonical(new),
            work=guarded,
        )


def _canonical(new: object) -> Mapping[str, Any]:
    """The request as the idempotency key keeps it: its text on the wire, without the key itself."""
    return {name: value for name, value in dump(new).items() if name != "message_id"}


def _by_message_id(given: Sequence[N]) -> dict[str, N]:
    """Items by message_id, in the given order; the same id twice with one body is one item. Raises
    `MessageIdReused`."""
    items: dict[str, N] = {}
    for item in given:
        first = items.setdefault(item.message_id, item)
        if first != item:
            raise_reused(differing_fields(_canonical(item), _canonical(first)), item.message_id)
    return items


def _keys(pool_id: str, items: Iterable[_Named]) -> dict[str, Mapping[str, Any]]:
    return {item.message_id: {"pool_id": pool_id, **_canonical(item)} for item in items}


def _claim(session: Session, pool_id: str, users: Mapping[str, str]) -> list[Claim]:
    """Claim for each user, by message_id; returns one `Claim` each. Raises `LossExceedsPosition`."""
    pool = store.lock_pool(session, pool_id)
    positions = store.lock_positions(session, pool_id, users.values())
    moved = []
    for message_id, user_id in users.items():
        try:
            pool, positions[user_id], part = index_math.claim(pool, positions[user_id])
        except index_math.LossExceedsPosition as error:
            raise LossExceedsPosition(f"{user_id} owes more than the position is worth.") from error
        moved.append(store.Moved(message_id, user_id, part.staked_delta, part.exiting_delta, part.claimed))
    times = store.insert_moved(session, pool_id, "claim", pool.index, moved)
    store.save_positions(session, pool_id, positions)
    store.save_pool(session, pool_id, pool)
    return [Claim(one.message_id, pool_id, one.user_id, one.claimed, times[one.message_id]) for one in moved]


def _apply_deltas(session: Session, pool_id: str, deltas: Sequence[StakeDelta]) -> None:
    """Apply deltas in the given order. Raises `InsufficientStake`."""
    pool = store.lock_pool(session, pool_id)
    positions = store.lock_positions(session, pool_id, [delta.user_id for delta in deltas])
    for delta in deltas:
        position = positions[delta.user_id]
        try:
            pool, positions[delta.user_id] = index_math.change_stake(
                pool, position, delta.staked_delta_wei, delta.exiting_delta_wei
            )
        except index_math.StakeBelowZero as error:
            pending = index_math.pending_wei(position, pool.index)
            raise InsufficientStake(
                f"{delta.user_id} holds {position.staked} wei staked and {position.exiting} wei exiting, with {pending}"
                f" wei pending; {delta.message_id} takes more than that. Nothing of the batch was applied."
            ) from error
    store.save_positions(session, pool_id, positions)
    moved = [store.Moved(one.message_id, one.user_id, one.staked_delta_wei, one.exiting_delta_wei) for one in deltas]
    store.insert_moved(session, pool_id, "stake_delta", pool.index, moved)
    store.save_pool(session, pool_id, pool)
