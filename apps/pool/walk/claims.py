"""The walk meets a WithdrawalClaimed: what the chain really paid goes to the request, or to the company, that asked."""

from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from apps.clients.ledger import movement
from apps.common.database import transaction
from apps.common.wei import exact_int
from apps.pool.context import PoolContext
from apps.pool.feed import record_events
from apps.pool.flows.lanes import user_lanes
from apps.pool.flows.members import set_requests
from apps.pool.models import Batch, CompanyWithdrawal, Request, Walk, Withdrawal
from apps.pool.walk.booking import WalkHalted, post_effects
from apps.pool.walk.passing import claim_log, complete_batch, pass_item


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
            complete_batch(session, batch, item)
    if siblings.open == 0:
        set_requests(session, [row.request_id], status="completed", settled_wei=exact_int(siblings.paid), reason=None)
        record_events(session, [row.request_id])
    elif siblings.claiming == 0:
        set_requests(session, [row.request_id], status="waiting")
        record_events(session, [row.request_id])
