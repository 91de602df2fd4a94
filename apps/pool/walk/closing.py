"""The end of a block that the walk has booked: the dust of the operator's stETH, and the protocol's snapshot.

What is decided for the block is kept on the walk's row before it is posted: a run that dies in between posts the very same
step again.
"""

from sqlalchemy import select
from sqlalchemy.orm import Session

from apps.clients.ledger import movement
from apps.common.database import transaction
from apps.pool import effects
from apps.pool.context import PoolContext
from apps.pool.models import WHOLE_BLOCK, ProtocolMetric, Walk
from apps.pool.walk.booking import WalkHalted, post_effects, write_walk
from apps.pool.walk.passing import shares_mismatch
from apps.pool.walk.resolve import accept_dust, accept_shares

DUST_PER_OPERATION_WEI = 2
DUST_BASE_WEI = 10**9


def close_block(context: PoolContext, walk: Walk, block: int) -> None:
    """Everything up to `block` is booked: note the dust and the snapshot, then pass it."""
    state = context.protocols.state(block)
    steth, shares = state.operator.steth_wei, state.operator.shares
    if shares != walk.operator_shares and not accept_shares(context, walk, shares):
        pooled, total = state.total_pooled_ether_wei, state.total_shares
        halt = shares_mismatch(walk, shares, pooled, total)
        halt.facts["block_number"] = block
        raise halt
    dust = walk.submitted_wei - walk.requested_wei + walk.rewards_wei + walk.donated_wei - steth
    step = dust - walk.dust_wei
    bound = DUST_PER_OPERATION_WEI * walk.operations_since_dust + DUST_BASE_WEI
    if abs(step) > bound:
        step -= accept_dust(context, walk, step, bound)
    if abs(step) > bound:
        detail = f"The operator's stETH is off by {step} wei, more than rounding can be."
        raise WalkHalted("dust_out_of_bounds", detail, block_number=block, amount_wei=str(step))
    with transaction(context.sessions) as session:
        write_walk(
            context,
            session,
            walk,
            closing_block=block,
            closing_block_hash=state.block_hash,
            closing_step_wei=step,
            closing_total_pooled_ether_wei=state.total_pooled_ether_wei,
            closing_total_shares=state.total_shares,
            closing_share_rate=state.share_rate,
        )
    finish_closing(context, walk)


def finish_closing(context: PoolContext, walk: Walk) -> None:
    """Post what was decided for the block that is being closed, if there is one, and pass it."""
    if walk.closing_block is None:
        return
    block, step = walk.closing_block, walk.closing_step_wei or 0
    if step != 0:
        kind = "rounding_loss" if step > 0 else "rounding_gain"
        post_effects(context, walk, [movement(effects.dust(walk.id, block), kind, walk.id, None, abs(step))])
    with transaction(context.sessions) as session:
        _insert_snapshot(session, walk)
        write_walk(
            context,
            session,
            walk,
            cursor_block=block,
            cursor_log_index=WHOLE_BLOCK,
            cursor_block_hash=walk.closing_block_hash,
            dust_wei=walk.dust_wei + step,
            operations_since_dust=0,
            reward_since_snapshot_wei=0,
            closing_block=None,
            closing_block_hash=None,
            closing_step_wei=None,
            closing_total_pooled_ether_wei=None,
            closing_total_shares=None,
            closing_share_rate=None,
        )


def _insert_snapshot(session: Session, walk: Walk) -> None:
    total = walk.closing_total_pooled_ether_wei or 0
    last = session.scalars(
        select(ProtocolMetric)
        .where(ProtocolMetric.pool_id == walk.id)
        .order_by(ProtocolMetric.block_number.desc())
        .limit(1)
    ).one_or_none()
    session.add(
        ProtocolMetric(
            pool_id=walk.id,
            block_number=walk.closing_block,
            block_hash=walk.closing_block_hash,
            total_pooled_ether_wei=total,
            total_shares=walk.closing_total_shares,
            share_rate=walk.closing_share_rate,
            delta_wei=None if last is None else total - last.total_pooled_ether_wei,
            reward_wei=walk.reward_since_snapshot_wei,
        )
    )
    session.flush()
