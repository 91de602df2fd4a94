"""One function for each kind of chain item the walk meets: each books its effects under names derived from the item, and
then moves requests, batches and the cursor in one transaction. Items that stand next to each other are booked together where
that saves calls; however they are cut into groups, each effect has the name of its own item, so a run that died between
effects and cursor is repeated by any other cut. What a flow asked for is booked by that flow's own module.
"""

from collections.abc import Callable, Sequence

from apps.clients.ledger import movement
from apps.common.database import transaction
from apps.pool import effects
from apps.pool.context import PoolContext
from apps.pool.flows.stake import book_submit
from apps.pool.flows.unstake import store_withdrawals
from apps.pool.flows.withdrawal_claim import book_claims
from apps.pool.models import Walk
from apps.pool.walk.booking import Item, WalkHalted, accrue, post_effects, shares_of, wei_of
from apps.pool.walk.passing import pass_item, shares_mismatch
from apps.pool.walk.reward_source import reward_of
from apps.pool.walk.rewards import book_reward_events

ItemStep = Callable[[PoolContext, Walk, Item], None]
GroupStep = Callable[[PoolContext, Walk, Sequence[Item]], None]
Place = tuple[object, ...]


def accrue_rebase(context: PoolContext, walk: Walk, item: Item) -> None:
    """A rebase: accrued once, signed, from the shares just before it, which must be the ones the walk has met."""
    rebase = item.rebase
    assert rebase is not None  # its kind says so
    if rebase.operator_shares != walk.operator_shares:
        found, total = rebase.operator_shares, rebase.pre_total_shares
        raise shares_mismatch(walk, found, rebase.pre_total_ether_wei, total)
    reward = reward_of(context, walk, rebase)
    place = item.block_number, item.log_index
    accrual = accrue(context, walk, effects.rebase(*place), reward)
    rows = []
    if reward != 0:
        kind = "reward_accrue" if reward > 0 else "reward_drop"
        rows.append(movement(effects.rebase_book(*place), kind, walk.id, None, abs(reward), reference=item.tx_hash))
    if accrual.fee_wei > 0:
        rows.append(movement(effects.rebase_fee(*place), "fee", walk.id, None, accrual.fee_wei))
    post_effects(context, walk, rows)
    with transaction(context.sessions) as session:
        pass_item(
            context,
            session,
            walk,
            item,
            operations=1,
            # The shares' own gain, whatever source pays the users: the dust is computed from the chain alone.
            rewards_wei=walk.rewards_wei + rebase.reward_wei,
            reward_since_snapshot_wei=walk.reward_since_snapshot_wei + reward,
            reconciliation_wanted=True,
        )
    if reward < 0:
        book_reward_events(context, walk)  # the index may have settled the loss into all positions


def book_donations(context: PoolContext, walk: Walk, items: Sequence[Item]) -> None:
    """stETH that other senders gave is the company's; it earns for the pool from here on.

    Gifts that stand next to each other are booked together: a sender of thousands of them, a wei each, costs the walk a call a
    page, and keeps no user waiting.
    """
    gifts = [item for item in items if wei_of(item) > 0]
    names = [effects.donation(item.block_number, item.log_index) for item in gifts]
    post_effects(
        context,
        walk,
        [
            movement(name, "donation", walk.id, None, wei_of(item), reference=item.tx_hash)
            for name, item in zip(names, gifts, strict=True)
        ],
    )
    with transaction(context.sessions) as session:
        pass_item(
            context,
            session,
            walk,
            items[-1],
            shares=sum(shares_of(item) for item in items),
            donated_wei=walk.donated_wei + sum(wei_of(item) for item in items),
            operations=len(items),
        )


def halt_on_foreign_out(context: PoolContext, walk: Walk, item: Item) -> None:
    """stETH left the operator in a transaction of no batch: the key may be in other hands."""
    raise WalkHalted("foreign_out", f"{item.shares} shares left the operator in {item.tx_hash}.")


def together(item: Item) -> Place:
    """Items next to each other are booked together where this is equal: the elements of one request, the claims of one
    block, and gifts. All others are alone."""
    alone = item.block_number, item.log_index
    return item.kind, *{"request": (item.tx_hash,), "claim": alone[:1], "foreign_in": ()}.get(item.kind, alone)


def _alone(step: ItemStep) -> GroupStep:
    def book(context: PoolContext, walk: Walk, items: Sequence[Item]) -> None:
        (item,) = items
        step(context, walk, item)

    return book


ITEM_STEPS: dict[str, GroupStep] = {
    "submit": _alone(book_submit),
    "request": store_withdrawals,
    "claim": book_claims,
    "rebase": _alone(accrue_rebase),
    "foreign_in": book_donations,
    "foreign_out": _alone(halt_on_foreign_out),
}
