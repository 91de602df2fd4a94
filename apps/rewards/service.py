"""The rules of the reward index and its transactions. The arithmetic is `index_math`, the SQL is `store`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
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
    Settlement,
    StakeDelta,
    StakeDeltasAnswer,
)
from apps.common.append_only import Proof
from apps.common.database import Sessions, transaction
from apps.common.errors import InProgress, InvalidInput
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
from apps.rewards.index_math import PoolState
from apps.rewards.models import MessageKey
from apps.rewards.settlement import Settlements, Unsettled, settle_first, settle_piece
from apps.rewards.spreading import Cause, hold_settled, spread
from apps.rewards.standings import Outdated, Scan, bearable_fall, scan_ahead, with_standing
from apps.rewards.store import HeldPool

_DELTA_ANSWER = dumps(dump(StakeDeltasAnswer(applied=1, replayed=0)))


class _Named(Protocol):
    @property
    def message_id(self) -> str: ...


N = TypeVar("N", bound=_Named)
# How often a loss looks at the positions anew, or at the losses before it, until its caller is asked to come again.
ATTEMPTS = 3
# What moves the index, given what a scan told before the pool was locked.
Work = Callable[[Scan | None, Session], Accrual]


class RewardsService:
    """Owns the transactions that write. Each locks the pool's row first; nothing is written before `proof` is had."""

    def __init__(self, sessions: Sessions, proof: Proof, fee_bps: int, settlements: Settlements) -> None:
        self._sessions = sessions
        self._settlements = settlements
        self._proof = proof
        self._fee_bps = fee_bps

    def accrue(self, new: NewAccrual) -> Answer:
        """Spread a signed reward over the pool's weight. The answer is an `Accrual`.

        The cost does not depend on the number of positions. Of a loss, what they cannot bear is parked, and a great one is
        settled into all of them before it is answered, piece by piece. Refuses with `AmountOutOfRange`; raises
        `InProgress` while a loss is being settled.
        """

        def work(ahead: Scan | None, session: Session) -> Accrual:
            held = with_standing(session, hold_settled(session, new.pool_id), new.new_rewards_wei, ahead)
            fall = bearable_fall(held, new.new_rewards_wei)
            pool, parts = index_math.accrue(held.state, new.new_rewards_wei, self._fee_bps, fall)
            cause = Cause("accrual", new.message_id, new.pool_id, new.source, new.new_rewards_wei, self._fee_bps)
            return self._spread(session, cause, held, pool, parts)

        return self._settled("accruals", new, new.new_rewards_wei, work)

    def release_parked(self, new: NewRelease) -> Answer:
        """Hand parked wei, a gain or a loss, to the positions of today, without another fee.

        The answer is an `Accrual` of source ``parked``. Its `new_rewards_wei` is 0 and its `parked_wei` is minus the
        amount: nothing new came, so sums over all accruals stay true. Refuses with `NothingStaked`,
        `InsufficientParked`, `LossExceedsPosition`; a negative amount where no loss is parked is `InvalidInput`.
        """

        def work(ahead: Scan | None, session: Session) -> Accrual:
            held = hold_settled(session, new.pool_id)
            before = held.state
            if new.amount_wei < 0 <= before.parked:
                raise InvalidInput(errors={"amount_wei": ["Must be at least 1: no loss is parked."]})
            held = with_standing(session, held, new.amount_wei, ahead)
            fall = bearable_fall(held, new.amount_wei)
            try:
                pool, parts = index_math.release(before, new.amount_wei, fall)
            except index_math.NothingStaked as error:
                raise NothingStaked from error
            except index_math.NotParked as error:
                raise InsufficientParked(f"{before.parked} wei are parked in this pool.") from error
            except index_math.LossExceedsPosition as error:
                most = index_math.bearable_loss(before, fall or 0)
                raise LossExceedsPosition(f"The positions of today can bear a loss of {most} wei at most.") from error
            cause = Cause("release", new.message_id, new.pool_id, "parked", 0, 0)
            return self._spread(session, cause, held, pool, parts)

        return self._settled("parked/release", new, new.amount_wei, work)

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

    def settle(self, pool_id: str) -> Settlement:
        """Go on with a loss that is being settled, for a few seconds. It is never needed for safety: the next accrual
        goes on, too."""
        self._proof.require()
        return Settlement(pool_id, settling=not self._settlements.go_on(pool_id))

    def audit(self, pool_id: str | None, *, full: bool = True) -> Audit:
        """Replay the log of one pool, or of all of them, or what is new in it, compare it with the tables, and keep what was
        found."""
        return run_audit(self._sessions, pool_id, full=full)

    def _spread(
        self, session: Session, cause: Cause, held: HeldPool, pool: PoolState, parts: index_math.Accrued
    ) -> Accrual:
        accrual, held = spread(session, cause, held, pool, parts)
        store.save(session, settle_piece(session, held, self._settlements.piece))
        return accrual

    def _settled(self, endpoint: str, new: NewAccrual | NewRelease, amount_wei: int, work: Work) -> Answer:
        """`_once`, with any loss settled before it and its own one after it. Raises `InProgress` where that takes longer than
        a call may: what was done stands, and the same call goes on with it."""
        for _ in range(ATTEMPTS):
            try:
                answer = self._once(endpoint, new, partial(work, scan_ahead(self._sessions, new.pool_id, amount_wei)))
                break
            except Unsettled:
                self._wait_settled(new.pool_id)
            except Outdated:
                continue
        else:  # other losses, or changes of very many positions, came in between each time
            raise InProgress(retry_after=1)
        if amount_wei < 0:
            self._wait_settled(new.pool_id)
        return answer

    def _wait_settled(self, pool_id: str) -> None:
        if not self._settlements.go_on(pool_id):
            raise InProgress("A loss of this pool is being settled; ask again in a moment.", retry_after=1)

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
    held = store.lock_pool(session, pool_id)
    positions = store.lock_positions(session, pool_id, users.values())
    held = settle_first(session, held, positions)
    pool = held.state
    moved = []
    for message_id, user_id in users.items():
        try:
            pool, positions[user_id], part = index_math.claim(pool, positions[user_id])
        except index_math.LossExceedsPosition as error:
            raise LossExceedsPosition(f"{user_id} owes more than the position is worth.") from error
        moved.append(store.Moved(message_id, user_id, part.staked_delta, part.exiting_delta, part.claimed))
    times = store.insert_moved(session, pool_id, "claim", pool.index, moved)
    store.save(session, replace(held, state=pool), positions)
    return [Claim(one.message_id, pool_id, one.user_id, one.claimed, times[one.message_id]) for one in moved]


def _apply_deltas(session: Session, pool_id: str, deltas: Sequence[StakeDelta]) -> None:
    """Apply deltas in the given order. Raises `InsufficientStake`."""
    held = store.lock_pool(session, pool_id)
    positions = store.lock_positions(session, pool_id, [delta.user_id for delta in deltas])
    held = settle_first(session, held, positions)
    pool = held.state
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
    moved = [store.Moved(one.message_id, one.user_id, one.staked_delta_wei, one.exiting_delta_wei) for one in deltas]
    store.insert_moved(session, pool_id, "stake_delta", pool.index, moved)
    store.save(session, replace(held, state=pool), positions)
