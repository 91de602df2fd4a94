"""What a rebase pays to the pool's users, by ``REWARD_SOURCE``."""

from typing import Any

from sqlalchemy import select

from apps.clients.shapes.history import Rebase
from apps.common.database import transaction
from apps.pool.context import PoolContext
from apps.pool.models import Walk, Withdrawal
from apps.pool.walk.booking import WalkHalted


def reward_of(context: PoolContext, walk: Walk, rebase: Rebase) -> int:
    """The signed reward in wei of one rebase.

    ``share_rate`` (default): the gain of the operator's own shares, exact whoever else holds stETH.
    ``total_pooled_ether``: the change of the protocol's total, net of finalized withdrawals (own submits never fall
    into
    a rebase). That is the pool's gain only where operator and queue hold all shares and Lido takes no fee, so it is
    refused, by halting the walk, unless that holds before and after the rebase.
    """
    if context.settings.reward_source == "share_rate":
        return rebase.reward_wei
    with transaction(context.sessions) as session:
        open_nfts = session.execute(
            select(Withdrawal.withdrawal_id, Withdrawal.shares)
            .where(Withdrawal.pool_id == walk.id)
            .order_by(Withdrawal.withdrawal_id)
        ).all()
    pre_shares, post_shares = rebase.pre_total_shares, rebase.post_total_shares
    queued = pre_shares - rebase.operator_shares
    burnt = pre_shares - post_shares
    finalized = _finalized_by(open_nfts, queued, burnt)
    if finalized is None:
        raise WalkHalted(
            "reward_source_refused",
            "REWARD_SOURCE=total_pooled_ether needs operator and queue to hold all shares, and a protocol without fee.",
        )
    paid = sum(item.claimable_wei for item in context.protocols.withdrawal_status(finalized)) if finalized else 0
    return rebase.post_total_ether_wei - rebase.pre_total_ether_wei + paid


def _finalized_by(nfts: Any, queued_shares: int, burnt_shares: int) -> list[int] | None:
    """The NFTs a rebase finalized: of those still queued (the newest, first in first out) the oldest, to the share.

    None where the queue's or the burnt shares are not exactly our NFTs': another holder has stETH, or a fee was
    minted.
    """
    waiting: list[Any] = []
    total = 0
    for nft in reversed(nfts):
        if total == queued_shares:
            break
        waiting.insert(0, nft)
        total += int(nft.shares)
    if total != queued_shares or burnt_shares < 0:
        return None
    finalized: list[int] = []
    for nft in waiting:
        if burnt_shares == 0:
            break
        burnt_shares -= int(nft.shares)
        finalized.append(int(nft.withdrawal_id))
    return finalized if burnt_shares == 0 else None
