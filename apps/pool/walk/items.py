"""One function per kind of chain item the walk meets. Each books its effects under ids derived from the item, and then
moves requests, batches and the cursor in one transaction.
"""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import select

from apps.clients.ledger import movement
from apps.clients.rewards import stake_delta
from apps.common.database import transaction
from apps.pool.context import PoolContext
from apps.pool.flows.lanes import user_lanes
from apps.pool.flows.members import members, move_members
from apps.pool.flows.transactions import refresh_open_transactions
from apps.pool.models import Batch, BatchTransaction, Request, Walk, Withdrawal
from apps.pool.walk.booking import WalkHalted, accrue, book_reward_events, move_stakes, post_effects
from apps.pool.walk.claims import settle_claim
from apps.pool.walk.passing import complete_batch, pass_item, request_log, shares_mismatch
from apps.pool.walk.reward_source import reward_of

ItemStep = Callable[[PoolContext, Walk, dict[str, Any]], None]


def confirm_submit(context: PoolContext, walk: Walk, item: dict[str, Any]) -> None:
    """Our submit: its batch's reserved ETH is staked, in the index first (an increase), then in the books."""
    batch = _batch_of(context, walk, item, "stake")
    amount, shares = int(item["amount_wei"]), int(item["shares"])
    found = members(context, batch.id)
    if sum(member.amount_wei for member in found) != amount:
        raise WalkHalted("submit_mismatch", f"Batch {batch.id} was not the {amount} wei that were submitted.")
    with user_lanes(context.sessions, walk.id, [member.user_id for member in found], context.settings.lease_sec):
        move_stakes(
            context,
            walk,
            [stake_delta(f"stake:{row.request_id}:confirm", row.user_id, row.amount_wei) for row in found],
        )
        post_effects(
            context,
            walk,
            [
                movement(
                    f"stake:{row.request_id}:confirm",
                    "stake_confirm",
                    walk.id,
                    row.user_id,
                    row.amount_wei,
                    reference=item["tx_hash"],
                )
                for row in found
            ],
        )
        with transaction(context.sessions) as session:
            pass_item(
                context, session, walk, item, shares=shares, submitted_wei=walk.submitted_wei + amount, operations=1
            )
            complete_batch(session, batch, item)
            move_members(session, batch, "completed", settled_wei=Request.amount_wei, reason=None)


def store_withdrawal(context: PoolContext, walk: Walk, item: dict[str, Any]) -> None:
    """Our request: one element, one NFT. With the last one the batch is done and its requests wait."""
    batch = _batch_of(context, walk, item, "unstake")
    log, position, count = request_log(context, item)
    elements = batch.context["elements"]
    if count != len(elements) or int(log["amount_wei"]) != int(elements[position]["amount_wei"]):
        raise WalkHalted("request_mismatch", f"The withdrawals of batch {batch.id} are not those that were asked for.")
    element = elements[position]
    last = position == count - 1
    if last:
        _book_cuts(context, walk, batch)
    with transaction(context.sessions) as session:
        session.add(
            Withdrawal(
                withdrawal_id=int(log["withdrawal_id"]),
                pool_id=walk.id,
                request_id=element["reference"],
                batch_id=batch.id,
                amount_wei=int(log["amount_wei"]),
                shares=int(log["shares"]),
            )
        )
        requested_wei = walk.requested_wei + int(log["amount_wei"])
        pass_item(context, session, walk, item, shares=-int(item["shares"]), requested_wei=requested_wei, operations=1)
        if last:
            complete_batch(session, batch, item)
            move_members(session, batch, "waiting", reason=None)


def accrue_rebase(context: PoolContext, walk: Walk, item: dict[str, Any]) -> None:
    """A rebase: accrued once, signed, from the shares just before it, which must be the ones the walk has met."""
    rebase = item["rebase"]
    if int(rebase["operator_shares"]) != walk.operator_shares:
        found, total = int(rebase["operator_shares"]), int(rebase["pre_total_shares"])
        raise shares_mismatch(walk, found, int(rebase["pre_total_ether_wei"]), total)
    reward = reward_of(context, walk, rebase)
    name = f"rebase:{item['block_number']}:{item['log_index']}"
    accrual = accrue(context, walk, name, reward)
    rows = []
    if reward != 0:
        kind = "reward_accrue" if reward > 0 else "reward_drop"
        rows.append(movement(f"{name}:book", kind, walk.id, None, abs(reward), reference=item["tx_hash"]))
    if int(accrual["fee_wei"]) > 0:
        rows.append(movement(f"{name}:fee", "fee", walk.id, None, int(accrual["fee_wei"])))
    post_effects(context, walk, rows)
    since = int(walk.context.get("reward_since_snapshot", "0")) + reward
    with transaction(context.sessions) as session:
        kept = {**walk.context, "reward_since_snapshot": str(since)}
        # The shares' own gain, whatever source pays the users: the dust is computed from the chain alone.
        gain = walk.rewards_wei + int(rebase["reward_wei"])
        values: dict[str, Any] = {"rewards_wei": gain, "context": kept, "reconciliation_wanted": True}
        pass_item(context, session, walk, item, operations=1, **values)
    if reward < 0:
        book_reward_events(context, walk)  # the index may have settled the loss into all positions


def book_donations(context: PoolContext, walk: Walk, items: Sequence[dict[str, Any]]) -> None:
    """stETH that strangers sent is the company's; it earns for the pool from here on.

    Gifts that stand next to each other are booked together: a stranger who sends thousands of them, a wei each, costs the
    walk a call a page, and keeps nobody waiting.
    """
    gifts = [item for item in items if int(item["amount_wei"]) > 0]
    names = [f"donation:{item['block_number']}:{item['log_index']}" for item in gifts]
    post_effects(
        context,
        walk,
        [
            movement(name, "donation", walk.id, None, int(item["amount_wei"]), reference=item["tx_hash"])
            for name, item in zip(names, gifts, strict=True)
        ],
    )
    with transaction(context.sessions) as session:
        pass_item(
            context,
            session,
            walk,
            items[-1],
            shares=sum(int(item["shares"]) for item in items),
            donated_wei=walk.donated_wei + sum(int(item["amount_wei"]) for item in items),
            operations=len(items),
        )


def book_donation(context: PoolContext, walk: Walk, item: dict[str, Any]) -> None:
    book_donations(context, walk, [item])


def halt_on_foreign_out(context: PoolContext, walk: Walk, item: dict[str, Any]) -> None:
    """stETH left the operator and no batch of ours sent it: the key may be in other hands."""
    raise WalkHalted("foreign_out", f"{item['shares']} shares left the operator in {item['tx_hash']}.")


ITEM_STEPS: dict[str, ItemStep] = {
    "submit": confirm_submit,
    "request": store_withdrawal,
    "claim": settle_claim,
    "rebase": accrue_rebase,
    "foreign_in": book_donation,
    "foreign_out": halt_on_foreign_out,
}


def _batch_of(context: PoolContext, walk: Walk, item: dict[str, Any], kind: str) -> Batch:
    for fresh in (False, True):
        if fresh:
            refresh_open_transactions(context, walk.id)
        with transaction(context.sessions) as session:
            batch = session.scalars(
                select(Batch)
                .join(BatchTransaction, BatchTransaction.batch_id == Batch.id)
                .where(BatchTransaction.tx_hash == item["tx_hash"], Batch.pool_id == walk.id, Batch.kind == kind)
            ).one_or_none()
        if batch is not None:
            return batch
    raise WalkHalted(f"unknown_{item['kind']}", f"No batch of this pool sent {item['tx_hash']}.")


def _book_cuts(context: PoolContext, walk: Walk, batch: Batch) -> None:
    """Where the operator's stETH was a few wei short, the difference goes to @rounding, visible and bounded."""
    faces: dict[str, int] = {}
    for element in batch.context["elements"]:
        faces[element["reference"]] = faces.get(element["reference"], 0) + int(element["amount_wei"])
    rows = [
        movement(
            f"unstake:{member.request_id}:cut",
            "unstake_cut",
            walk.id,
            member.user_id,
            member.amount_wei - faces.get(member.request_id, 0),
        )
        for member in members(context, batch.id)
        if member.amount_wei != faces.get(member.request_id, 0)
    ]
    post_effects(context, walk, rows)
