"""One function per kind of chain item the walk meets. Each books its effects under ids derived from the item, and then
moves requests, batches and the cursor in one transaction.
"""

from collections.abc import Callable
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
from apps.pool.models import Batch, BatchTransaction, Request, Walk, Withdrawal
from tasks.booking import WalkHalted, book_reward_events, write_walk
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
        context.rewards.stake_deltas(
            walk.id,
            [stake_delta(f"stake:{row.request_id}:confirm", row.user_id, row.amount_wei) for row in found],
        )
        context.ledger.post_batch(
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
            ]
        )
        with transaction(context.sessions) as session:
            _pass(context, session, walk, item, shares=shares, submitted_wei=walk.submitted_wei + amount, operations=1)
            _complete(session, batch, item)
            move_members(session, batch, "completed", settled_wei=Request.amount_wei, reason=None)


def store_withdrawal(context: PoolContext, walk: Walk, item: dict[str, Any]) -> None:
    """Our request: one element, one NFT. With the last one the batch is done and its requests wait."""
    batch = _batch_of(context, walk, item, "unstake")
    requested = _receipt(context, item)["withdrawal_requests"]
    logs = sorted(requested, key=lambda log: log["log_index"])
    # Each element's share transfer stands before its WithdrawalRequested in the receipt.
    position = next(number for number, log in enumerate(logs) if log["log_index"] > item["log_index"])
    log, element = logs[position], batch.context["elements"][position]
    if int(log["amount_wei"]) != int(element["amount_wei"]) or len(logs) != len(batch.context["elements"]):
        raise WalkHalted("request_mismatch", f"The withdrawals of batch {batch.id} are not those that were asked for.")
    last = position == len(logs) - 1
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
        _pass(context, session, walk, item, shares=-int(item["shares"]), requested_wei=requested_wei, operations=1)
        if last:
            _complete(session, batch, item)
            move_members(session, batch, "waiting", reason=None)


def settle_claim(context: PoolContext, walk: Walk, item: dict[str, Any]) -> None:
    """Our claim: the request gets what the chain really paid, and bears what is missing to its face."""
    claims = _receipt(context, item)["withdrawal_claims"]
    log = next(log for log in claims if log["log_index"] == item["log_index"])
    withdrawal_id, paid = int(log["withdrawal_id"]), int(log["amount_wei"])
    custody = context.settings.custody_address or ""
    if log["receiver"].lower() != custody.lower():
        raise WalkHalted("claim_paid_elsewhere", f"Withdrawal {withdrawal_id} was paid to {log['receiver']}.")
    with transaction(context.sessions) as session:
        row = session.get(Withdrawal, withdrawal_id)
        if row is None:
            raise WalkHalted("unknown_withdrawal", f"Withdrawal {withdrawal_id} belongs to no request.")
        user_id = session.scalars(select(Request.user_id).where(Request.id == row.request_id)).one()
    missing = row.amount_wei - paid
    rows = [
        movement(f"settle:{withdrawal_id}:paid", "unstake_settle", walk.id, user_id, paid, reference=row.request_id)
    ]
    if missing > 0:
        name = f"settle:{withdrawal_id}:shortfall"
        rows.append(movement(name, "unstake_shortfall", walk.id, user_id, missing, reference=row.request_id))
    with user_lanes(context.sessions, walk.id, [user_id], context.settings.lease_sec):
        context.ledger.post_batch([entry for entry in rows if int(entry["amount_wei"]) > 0])
        with transaction(context.sessions) as session:
            _pass(context, session, walk, item, operations=1)
            _pay(session, row, paid, item)


def accrue_rebase(context: PoolContext, walk: Walk, item: dict[str, Any]) -> None:
    """A rebase: accrued once, signed, from the shares just before it, which must be the ones the walk has met."""
    rebase = item["rebase"]
    if int(rebase["operator_shares"]) != walk.operator_shares:
        detail = f"The operator held {rebase['operator_shares']} shares, the walk has met {walk.operator_shares}."
        raise WalkHalted("shares_mismatch", detail)
    reward = reward_of(context, walk, rebase)
    name = f"rebase:{item['block_number']}:{item['log_index']}"
    accrual = context.rewards.accrue(name, walk.id, reward, context.settings.reward_source)
    rows = []
    if reward != 0:
        kind = "reward_accrue" if reward > 0 else "reward_drop"
        rows.append(movement(f"{name}:book", kind, walk.id, None, abs(reward), reference=item["tx_hash"]))
    if int(accrual["fee_wei"]) > 0:
        rows.append(movement(f"{name}:fee", "fee", walk.id, None, int(accrual["fee_wei"])))
    context.ledger.post_batch(rows)
    since = int(walk.context.get("reward_since_snapshot", "0")) + reward
    with transaction(context.sessions) as session:
        kept = {**walk.context, "reward_since_snapshot": str(since)}
        # The shares' own gain, whatever source pays the users: the dust is computed from the chain alone.
        gain = walk.rewards_wei + int(rebase["reward_wei"])
        values: dict[str, Any] = {"rewards_wei": gain, "context": kept, "reconciliation_wanted": True}
        _pass(context, session, walk, item, operations=1, **values)
    if reward < 0:
        book_reward_events(context, walk)  # the index may have settled the loss into all positions


def book_donation(context: PoolContext, walk: Walk, item: dict[str, Any]) -> None:
    """stETH that a stranger sent is the company's; it earns for the pool from here on."""
    amount, shares = int(item["amount_wei"]), int(item["shares"])
    name = f"donation:{item['block_number']}:{item['log_index']}"
    if amount > 0:
        context.ledger.post_batch([movement(name, "donation", walk.id, None, amount, reference=item["tx_hash"])])
    with transaction(context.sessions) as session:
        _pass(context, session, walk, item, shares=shares, donated_wei=walk.donated_wei + amount, operations=1)


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


def _pass(
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
    write_walk(
        context,
        session,
        walk,
        cursor_block=int(item["block_number"]),
        cursor_log_index=int(item["log_index"]),
        cursor_block_hash=item["block_hash"],
        operator_shares=walk.operator_shares + shares,
        operations_since_dust=walk.operations_since_dust + operations,
        **values,
    )


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
    context.ledger.post_batch(rows)


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
