"""One function per kind of chain item the walk meets. Each books its effects under ids derived from the item, and then
moves requests, batches and the cursor in one transaction.
"""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from apps.clients.ledger import movement
from apps.clients.rewards import stake_delta
from apps.common.database import transaction
from apps.common.wei import exact_int
from apps.pool.context import PoolContext
from apps.pool.feed import record_events
from apps.pool.lanes import user_lanes
from apps.pool.leases import flow_event
from apps.pool.models import Batch, BatchTransaction, CompanyWithdrawal, Request, Walk, Withdrawal
from tasks.booking import WalkHalted, accrue, book_reward_events, move_stakes, post_effects, write_walk
from tasks.members import members, move_members, set_requests
from tasks.reward_source import reward_of
from tasks.sending import refresh_open_transactions

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
            _complete(session, batch, item)
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
            _complete(session, batch, item)
            move_members(session, batch, "waiting", reason=None)


def settle_claim(context: PoolContext, walk: Walk, item: dict[str, Any]) -> None:
    """Our claim: the request gets what the chain really paid, and bears what is missing to its face."""
    log = claim_log(context, item)
    withdrawal_id = int(log["withdrawal_id"])
    custody = context.settings.custody_address or ""
    if log["receiver"].lower() != custody.lower():
        raise WalkHalted("claim_paid_elsewhere", f"Withdrawal {withdrawal_id} was paid to {log['receiver']}.")
    with transaction(context.sessions) as session:
        row = session.get(Withdrawal, withdrawal_id)
        companys = session.get(CompanyWithdrawal, withdrawal_id)
    if row is not None:
        settle_user_claim(context, walk, item, log, row)
    elif companys is not None:
        _settle_company_claim(context, walk, item, log, companys)
    else:
        raise WalkHalted("unknown_withdrawal", f"Withdrawal {withdrawal_id} belongs to no request.")


def settle_user_claim(
    context: PoolContext, walk: Walk, item: dict[str, Any], log: dict[str, Any], row: Withdrawal
) -> None:
    """Credit the request of a paid withdrawal, and complete it with its last one."""
    withdrawal_id, paid = row.withdrawal_id, int(log["amount_wei"])
    with transaction(context.sessions) as session:
        user_id = session.scalars(select(Request.user_id).where(Request.id == row.request_id)).one()
    missing = row.amount_wei - paid
    rows = [
        movement(f"settle:{withdrawal_id}:paid", "unstake_settle", walk.id, user_id, paid, reference=row.request_id)
    ]
    if missing > 0:
        name = f"settle:{withdrawal_id}:shortfall"
        rows.append(movement(name, "unstake_shortfall", walk.id, user_id, missing, reference=row.request_id))
    with user_lanes(context.sessions, walk.id, [user_id], context.settings.lease_sec):
        post_effects(context, walk, [entry for entry in rows if int(entry["amount_wei"]) > 0])
        with transaction(context.sessions) as session:
            pass_item(context, session, walk, item, operations=1)
            _pay(session, row, paid, item)


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


def request_log(context: PoolContext, item: dict[str, Any]) -> tuple[dict[str, Any], int, int]:
    """The WithdrawalRequested of a share transfer to the queue, its place among its transaction's, and their number."""
    logs = sorted(_receipt(context, item)["withdrawal_requests"], key=lambda log: int(log["log_index"]))
    # Each element's share transfer stands before its WithdrawalRequested in the receipt.
    for position, log in enumerate(logs):
        if log["log_index"] > item["log_index"]:
            return log, position, len(logs)
    raise WalkHalted("request_mismatch", f"The receipt of {item['tx_hash']} shows no withdrawal for its shares.")


def claim_log(context: PoolContext, item: dict[str, Any]) -> dict[str, Any]:
    """The WithdrawalClaimed of a claim item."""
    for log in _receipt(context, item)["withdrawal_claims"]:
        if log["log_index"] == item["log_index"]:
            return dict(log)
    raise WalkHalted("receipt_missing", f"The receipt of {item['tx_hash']} does not show the claim that was walked.")


def shares_mismatch(walk: Walk, found: int, pooled_wei: int, total_shares: int) -> WalkHalted:
    """The halt where the operator's shares are not those walked, with the difference and what it is worth."""
    difference = found - walk.operator_shares
    return WalkHalted(
        "shares_mismatch",
        f"The operator holds {found} shares, the walk has met {walk.operator_shares}.",
        shares=str(difference),
        amount_wei=str(abs(difference) * pooled_wei // total_shares),
    )


def pass_item(
    context: PoolContext,
    session: Session,
    walk: Walk,
    item: dict[str, Any],
    /,
    *,
    shares: int = 0,
    operations: int = 0,
    **values: Any,
) -> None:
    """Move the walk past an item, with its sums; one that is booked out of order leaves the walk where it stands."""
    place = {
        "cursor_block": int(item["block_number"]),
        "cursor_log_index": int(item["log_index"]),
        "cursor_block_hash": item["block_hash"],
    }
    write_walk(
        context,
        session,
        walk,
        **({} if item.get("out_of_order") else place),
        operator_shares=walk.operator_shares + shares,
        operations_since_dust=walk.operations_since_dust + operations,
        **values,
    )


def _settle_company_claim(
    context: PoolContext, walk: Walk, item: dict[str, Any], log: dict[str, Any], row: CompanyWithdrawal
) -> None:
    """The company's own withdrawal: its stETH has become ETH of its float, less what a slashing took."""
    number, paid = row.withdrawal_id, int(log["amount_wei"])
    rows = [
        movement(f"claim:{number}:company", "company_claim", walk.id, None, paid, reference=item["tx_hash"]),
        movement(f"claim:{number}:shortfall", "fees_lost", walk.id, None, max(0, row.amount_wei - paid)),
    ]
    post_effects(context, walk, [entry for entry in rows if int(entry["amount_wei"]) > 0])
    with transaction(context.sessions) as session:
        session.execute(
            update(CompanyWithdrawal).where(CompanyWithdrawal.withdrawal_id == number).values(paid_wei=paid),
            execution_options={"synchronize_session": False},
        )
        pass_item(context, session, walk, item, operations=1)


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


def _receipt(context: PoolContext, item: dict[str, Any]) -> dict[str, Any]:
    receipt = context.protocols.receipt(item["tx_hash"])
    if receipt is None:
        raise WalkHalted("receipt_missing", f"The chain has no receipt of {item['tx_hash']}, whose log was walked.")
    return receipt


def _complete(session: Session, batch: Batch, item: dict[str, Any]) -> None:
    """End a batch whatever its own step is doing: that step's checkpoint then finds its lease gone."""
    session.execute(
        update(Batch)
        .where(Batch.id == batch.id)
        .values(
            status="completed",
            reason=None,
            next_run_at=None,
            lease_token=None,
            lease_until=None,
            updated_at=func.clock_timestamp(),
        ),
        execution_options={"synchronize_session": False},
    )
    session.execute(
        update(BatchTransaction)
        .where(
            BatchTransaction.batch_id == batch.id,
            BatchTransaction.status.in_(("queued", "signed", "broadcast", "mined")),
        )
        .values(status="confirmed"),
        execution_options={"synchronize_session": False},
    )
    # The walk may be quicker than the batch's own look at the relayer: the item knows the hash.
    session.execute(
        update(BatchTransaction)
        .where(
            BatchTransaction.batch_id == batch.id,
            BatchTransaction.purpose == item["kind"],
            BatchTransaction.tx_hash.is_(None),
        )
        .values(tx_hash=item["tx_hash"]),
        execution_options={"synchronize_session": False},
    )
    session.add(flow_event(batch, "completed", "completed", None))


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


def _pay(session: Session, row: Withdrawal, paid: int, item: dict[str, Any]) -> None:
    """Note what an NFT paid; its request is completed with the last one, its claim batch likewise."""
    batch = None
    if row.claim_batch_id is not None:
        batch = session.scalars(select(Batch).where(Batch.id == row.claim_batch_id).with_for_update()).one()
    session.execute(select(Request.id).where(Request.id == row.request_id).with_for_update())
    session.execute(
        update(Withdrawal).where(Withdrawal.withdrawal_id == row.withdrawal_id).values(paid_wei=paid),
        execution_options={"synchronize_session": False},
    )
    siblings = session.execute(
        select(
            func.count().filter(Withdrawal.paid_wei.is_(None)).label("open"),
            func.count()
            .filter(Withdrawal.paid_wei.is_(None), Withdrawal.claim_batch_id.is_not(None))
            .label("claiming"),
            func.sum(Withdrawal.paid_wei).label("paid"),
        ).where(Withdrawal.request_id == row.request_id)
    ).one()
    if batch is not None and batch.status != "failed":
        claimed_by_it = Withdrawal.claim_batch_id == batch.id
        left = session.scalar(select(func.count()).where(claimed_by_it, Withdrawal.paid_wei.is_(None)))
        if left == 0:
            _complete(session, batch, item)
    if siblings.open == 0:
        set_requests(session, [row.request_id], status="completed", settled_wei=exact_int(siblings.paid), reason=None)
        record_events(session, [row.request_id])
    elif siblings.claiming == 0:
        set_requests(session, [row.request_id], status="waiting")
        record_events(session, [row.request_id])
