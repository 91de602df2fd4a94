"""A great loss reaches every position: in pieces, each a short transaction, and first those that something happens to.

The accrual lowers the index once, which every position bears from that moment: what it is worth is a difference of
indexes. What is left to do is bookkeeping, one claim for each position with an event that the walk books. It may be cut
wherever one likes, because until the last of it is done the index stands still, and claims at one index come to the same
wei in any order and however often.
"""

import time
from dataclasses import replace

import structlog
from sqlalchemy.orm import Session

from apps.common.crashpoint import crashpoint
from apps.common.database import Sessions, transaction
from apps.rewards import index_math, store
from apps.rewards.index_math import Claimed, PositionState
from apps.rewards.store import HeldPool, Settling

# The pool's row is locked for as long as a piece takes, a tenth of a second or so.
PIECE = 2_000
# Above this the next piece is half as great.
LOCKED_SEC = 0.25
# How long one call goes on before it asks its caller to come again; callers wait for ten seconds.
PATIENCE_SEC = 5.0

log = structlog.get_logger(__name__)


class Unsettled(Exception):
    """A loss is still being settled: the index must not move."""


class Settlements:
    """Carries on what an accrual began. Any number of callers may do so at once: each piece begins where the last one
    ended, under the pool's lock, and what a crash leaves is taken up by whoever comes next."""

    def __init__(self, sessions: Sessions, piece: int = PIECE, patience_sec: float = PATIENCE_SEC) -> None:
        self._sessions = sessions
        self._patience_sec = patience_sec
        self.piece = piece

    def go_on(self, pool_id: str) -> bool:
        """Settle piece by piece, at least one where there is one; returns whether all is settled."""
        until = time.monotonic() + self._patience_sec
        piece = self.piece
        while store.is_settling(self._sessions, pool_id):
            with transaction(self._sessions) as session, store.amounts_in_range():
                held = store.lock_pool(session, pool_id)
                locked = time.monotonic()
                held = settle_piece(session, held, piece)
                store.save(session, held)
            crashpoint("rewards.settle.piece")
            now = time.monotonic()
            if held.settling is not None and now >= until:
                return False
            # A database that is busy with other things gets less to do at a time.
            piece = max(1, piece // 2) if now - locked > LOCKED_SEC else min(self.piece, piece * 2)
        return True


def settle_piece(session: Session, held: HeldPool, piece: int) -> HeldPool:
    """Settle the next positions of a loss; with the last of them it is settled. Nothing to do is no change."""
    settling = held.settling
    if settling is None:
        return held
    done = store.settle_piece(session, held, settling, piece)
    state = replace(
        held.state,
        weight=held.state.weight + done.claimed,
        claimed=held.state.claimed + done.claimed,
        remainder=held.state.remainder + done.returned_scaled,
    )
    # Who was looked at is owed something or nothing now, and nobody less.
    floor = -state.index
    if done.seen == piece:
        assert done.last is not None
        after = Settling(settling.prefix, settling.events + done.events, done.last)
        lowest = None if held.lowest is None else min(held.lowest, floor)
        return replace(held, state=state, settling=after, lowest=lowest)
    log.info(
        "loss_settled", pool_id=held.pool_id, events=f"{settling.prefix}*", positions=settling.events + done.events
    )
    return replace(held, state=state, settling=None, lowest=floor)


def settle_first(session: Session, held: HeldPool, positions: dict[str, PositionState]) -> HeldPool:
    """While a loss is being settled, settle it into these locked positions before anything else happens to them.

    So a claim, a stake and an unstake meet the position as they would if the loss had been settled at once.
    """
    settling = held.settling
    if settling is None:
        return held
    state = held.state
    moved: dict[str, Claimed] = {}
    for user_id, position in positions.items():
        state, positions[user_id], claimed = index_math.claim(state, position)
        if claimed.claimed != 0:
            moved[user_id] = claimed
    if moved:
        store.insert_settlements(session, held, settling, moved)
    return replace(held, state=state, settling=replace(settling, events=settling.events + len(moved)))
