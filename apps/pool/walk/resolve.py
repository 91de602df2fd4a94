"""What the walk does about an item or a block that ops have decided about, in place of halting there.

Each effect is named after its resolution, or after the item, so it is booked once however often the walk comes by.
"""

from collections.abc import Callable, Iterable

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from apps.clients.base import pages
from apps.clients.ledger import movement
from apps.clients.shapes.ledger import NewMovement
from apps.common.database import transaction
from apps.flow.lease import flow_event
from apps.flow.row import reason
from apps.pool import effects
from apps.pool.context import PoolContext
from apps.pool.flows.members import park_members
from apps.pool.flows.withdrawal_claim import Payment, book_claims, is_usual, pay
from apps.pool.models import Batch, BatchTransaction, CompanyWithdrawal, Resolution, Walk, Withdrawal
from apps.pool.states import BATCH_TERMINAL, BatchStatus, ResolutionStatus
from apps.pool.walk.booked import is_booked
from apps.pool.walk.booking import Item, WalkHalted, item_of, post_effects, shares_of, wei_of, write_walk
from apps.pool.walk.passing import claim_log, pass_item, request_logs

DECIDED = (ResolutionStatus.APPROVED, ResolutionStatus.APPLIED)
LOSS_KINDS = {"@fees": "fees_lost", "@losses": "steth_lost"}


def decisions_about(context: PoolContext, pool_id: str, tx_hashes: Iterable[str]) -> dict[tuple[str, str], Resolution]:
    """What was decided about items of these transactions, by (hash, kind of item)."""
    with transaction(context.sessions) as session:
        rows = session.scalars(
            select(Resolution)
            .where(
                Resolution.pool_id == pool_id,
                Resolution.tx_hash.in_(set(tx_hashes)),
                Resolution.status.in_(DECIDED),
                Resolution.action.in_(("adopt_as_company", "book_loss")),
            )
            .order_by(Resolution.id)
        ).all()
    return {(str(row.tx_hash), str((row.halt or {})["kind"])): row for row in rows}


def decided_about_block(context: PoolContext, pool_id: str, action: str, code: str | None = None) -> Resolution | None:
    """The oldest decision of this kind that the walk has not acted on yet; with a code, about such a halt."""
    query = select(Resolution).where(
        Resolution.pool_id == pool_id, Resolution.status == ResolutionStatus.APPROVED, Resolution.action == action
    )
    if code is not None:
        query = query.where(Resolution.halt["code"].astext == code)
    with transaction(context.sessions) as session:
        return session.scalars(query.order_by(Resolution.id).limit(1)).one_or_none()


def apply_to_item(context: PoolContext, walk: Walk, item: Item, decided: Resolution) -> None:
    """Book an item as ops decided. A decision is about a transaction: a claim in it that pays a user as it should does so."""
    if item.kind == "claim" and is_usual(context, item):
        book_claims(context, walk, [item])
        return
    _STEPS[(decided.action, item.kind)](context, walk, item, decided)


def book_missed(context: PoolContext, walk: Walk, book: Callable[[Item, Resolution | None], None]) -> None:
    """Book the items that a rescan found behind the walk, where ops have said so; `book` books one of them, as it is
    usual or as was decided about it."""
    while (decided := decided_about_block(context, walk.id, "book_missed")) is not None:
        block, index = int(decided.block_number or 0), int(decided.log_index or 0)
        items = context.protocols.history(f"{block}:{index - 1}", 1).items
        found = items and (items[0].block_number, items[0].log_index) == (block, index)
        if found and not is_booked(context, walk.id, items[0]):
            item = item_of(items[0], out_of_order=True)
            about = decisions_about(context, walk.id, [item.tx_hash])
            book(item, about.get((item.tx_hash, item.kind)))
        with transaction(context.sessions) as session:
            mark_applied(session, decided)


def accept_shares(context: PoolContext, walk: Walk, found: int) -> bool:
    """Where ops have decided that a difference of shares is real: book it and take the chain's number. False without."""
    decided = decided_about_block(context, walk.id, "book_difference", "shares_mismatch")
    difference = found - walk.operator_shares
    if decided is None or decided.halt is None or int(decided.halt["shares"] or 0) != difference:
        return False
    amount = int(decided.halt["amount_wei"] or 0)
    _book_difference(context, walk, decided, amount, gone=difference < 0)
    sums = (
        {"requested_wei": walk.requested_wei + amount} if difference < 0 else {"donated_wei": walk.donated_wei + amount}
    )
    with transaction(context.sessions) as session:
        write_walk(
            context, session, walk, operator_shares=found, operations_since_dust=walk.operations_since_dust + 1, **sums
        )
        mark_applied(session, decided)
    return True


def accept_dust(context: PoolContext, walk: Walk, step: int, bound: int) -> int:
    """The part of a step of dust that ops have decided is real, booked as that; 0 without a decision."""
    decided = decided_about_block(context, walk.id, "book_difference", "dust_out_of_bounds")
    if decided is None or decided.halt is None:
        return 0
    accepted = int(decided.halt["amount_wei"] or 0)
    if abs(step - accepted) > bound:
        return 0
    _book_difference(context, walk, decided, abs(accepted), gone=accepted > 0)
    with transaction(context.sessions) as session:
        write_walk(context, session, walk, dust_wei=walk.dust_wei + accepted)
        mark_applied(session, decided)
    return accepted


def repin(context: PoolContext, walk: Walk) -> bool:
    """Put the walk on the chain's present blocks, where ops have decided so and the books are right there.

    The operator's shares at the new place must be those walked, and whatever stands between the old place and the new one
    must be booked already: a transaction that was mined again, later. Halts with the difference otherwise.
    """
    decided = decided_about_block(context, walk.id, "repin_block", "chain_reorganized")
    if decided is None:
        return False
    block = max(int(decided.block_number or 0), walk.cursor_block)
    here = f"{walk.cursor_block}:{walk.cursor_log_index}"
    for page in pages(lambda after: context.protocols.history(after or here, 200)):
        for item in page:
            if item.block_number <= block and not is_booked(context, walk.id, item):
                detail = f"{item.kind} {item.tx_hash} at or below block {block} is not booked; take a lower block."
                raise WalkHalted("chain_reorganized", detail)
    state = context.protocols.state(block)
    if state.operator.shares != walk.operator_shares:
        detail = (
            f"In block {block} the operator holds {state.operator.shares} shares and the walk has met "
            f"{walk.operator_shares}; name a later block_number, where what was mined again is there."
        )
        raise WalkHalted("chain_reorganized", detail)
    with transaction(context.sessions) as session:
        write_walk(context, session, walk, cursor_block=block, cursor_block_hash=state.block_hash)
        mark_applied(session, decided)
    return True


def mark_applied(session: Session, decided: Resolution) -> None:
    """Note that the walk has acted on a decision."""
    session.execute(
        update(Resolution)
        .where(Resolution.id == decided.id, Resolution.status == ResolutionStatus.APPROVED)
        .values(status=ResolutionStatus.APPLIED, applied_at=func.clock_timestamp()),
        execution_options={"synchronize_session": False},
    )


def _adopt_submit(context: PoolContext, walk: Walk, item: Item, decided: Resolution) -> None:
    """The company's ETH was staked by hand: out of its float, into its fees."""
    amount = wei_of(item)
    rows = [
        movement(effects.manual_submit(*_place(item)), "manual_submit", walk.id, None, amount, reference=item.tx_hash)
    ]
    post_effects(context, walk, [*rows, *_gas(walk, item, decided)])
    with transaction(context.sessions) as session:
        pass_item(
            context,
            session,
            walk,
            item,
            shares=shares_of(item),
            submitted_wei=walk.submitted_wei + amount,
            operations=1,
        )
        _park_batch_of(session, item)
        mark_applied(session, decided)


def _adopt_request(context: PoolContext, walk: Walk, item: Item, decided: Resolution) -> None:
    """The company's stETH waits in the queue; what it pays is met later, as `company_claim`."""
    ((log, _place_in_call),), _count = request_logs(context, [item])
    post_effects(context, walk, _gas(walk, item, decided))
    with transaction(context.sessions) as session:
        session.add(
            CompanyWithdrawal(
                withdrawal_id=log.withdrawal_id,
                pool_id=walk.id,
                resolution_id=decided.id,
                amount_wei=log.amount_wei,
                shares=log.shares,
            )
        )
        requested_wei = walk.requested_wei + log.amount_wei
        pass_item(context, session, walk, item, shares=-shares_of(item), requested_wei=requested_wei, operations=1)
        _park_batch_of(session, item)
        mark_applied(session, decided)


def _park_batch_of(session: Session, item: Item) -> None:
    """Where a batch sent the transaction that is now the company's, it is parked: its requests were not served by it."""
    batch = session.scalars(
        select(Batch)
        .join(BatchTransaction, BatchTransaction.batch_id == Batch.id)
        .where(BatchTransaction.tx_hash == item.tx_hash, BatchTransaction.purpose == item.kind)
        .with_for_update(of=Batch)
    ).one_or_none()
    if batch is None or batch.status in {*BATCH_TERMINAL, BatchStatus.NEEDS_ATTENTION}:
        return
    why = reason(f"{item.kind}_mismatch", "What its transaction did was adopted as the company's; release the batch.")
    batch.parked_status = batch.status
    batch.status, batch.reason, batch.next_run_at = BatchStatus.NEEDS_ATTENTION, why, None
    batch.lease_token = batch.lease_until = None
    session.add(flow_event(batch, "parked", BatchStatus.NEEDS_ATTENTION, why))
    session.flush()
    park_members(session, batch, why)


def _adopt_claim(context: PoolContext, walk: Walk, item: Item, decided: Resolution) -> None:
    """ETH of a withdrawal that nobody here asked for (a gift, as a rule) is the company's."""
    log = claim_log(context, item)
    name = effects.company_claim(log.withdrawal_id)
    rows = [movement(name, "manual_claim", walk.id, None, log.amount_wei, reference=item.tx_hash)]
    post_effects(context, walk, [*_positive(rows), *_gas(walk, item, decided)])
    _pass(context, walk, item, decided)


def _write_off(context: PoolContext, walk: Walk, item: Item, decided: Resolution) -> None:
    """stETH that left the operator is gone."""
    amount = wei_of(item)
    kind = LOSS_KINDS[str(decided.account)]
    rows = [movement(effects.manual_lost(*_place(item)), kind, walk.id, None, amount, reference=item.tx_hash)]
    post_effects(context, walk, [*_positive(rows), *_gas(walk, item, decided)])
    with transaction(context.sessions) as session:
        requested_wei = walk.requested_wei + amount
        pass_item(context, session, walk, item, shares=-shares_of(item), requested_wei=requested_wei, operations=1)
        mark_applied(session, decided)


def _write_off_claim(context: PoolContext, walk: Walk, item: Item, decided: Resolution) -> None:
    """A claim paid somebody else. Its user is credited all the same, out of the company's float."""
    log = claim_log(context, item)
    number, paid = log.withdrawal_id, log.amount_wei
    with transaction(context.sessions) as session:
        users = session.get(Withdrawal, number)
        companys = session.get(CompanyWithdrawal, number)
    rows = []
    if users is not None:
        rows.append(movement(effects.claim_lost(number), "eth_lost", walk.id, None, paid, reference=item.tx_hash))
    elif companys is not None:
        kind = LOSS_KINDS[str(decided.account)]
        rows.append(movement(effects.claim_lost(number), kind, walk.id, None, companys.amount_wei, item.tx_hash))
    post_effects(context, walk, [*_positive(rows), *_gas(walk, item, decided)])
    if users is not None:
        pay(context, walk, [Payment(item, log, users)])
        with transaction(context.sessions) as session:
            mark_applied(session, decided)
        return
    with transaction(context.sessions) as session:
        if companys is not None:
            session.execute(
                update(CompanyWithdrawal).where(CompanyWithdrawal.withdrawal_id == number).values(paid_wei=paid)
            )
    _pass(context, walk, item, decided)


_Step = Callable[[PoolContext, Walk, Item, Resolution], None]
_STEPS: dict[tuple[str, str], _Step] = {
    ("adopt_as_company", "submit"): _adopt_submit,
    ("adopt_as_company", "request"): _adopt_request,
    ("adopt_as_company", "claim"): _adopt_claim,
    ("book_loss", "foreign_out"): _write_off,
    ("book_loss", "claim"): _write_off_claim,
}


def _pass(context: PoolContext, walk: Walk, item: Item, decided: Resolution) -> None:
    with transaction(context.sessions) as session:
        pass_item(context, session, walk, item, operations=1)
        mark_applied(session, decided)


def _book_difference(context: PoolContext, walk: Walk, decided: Resolution, amount: int, *, gone: bool) -> None:
    kind = LOSS_KINDS[str(decided.account)] if gone else "steth_found"
    rows = [movement(effects.resolution_difference(decided.id), kind, walk.id, None, amount)]
    post_effects(context, walk, _positive(rows))


def _gas(walk: Walk, item: Item, decided: Resolution) -> list[NewMovement]:
    """Gas of a transaction that was sent by hand: no relayer tells its cost, so ops do."""
    cost = int(decided.gas_cost_wei or 0)
    name = effects.gas_by_hand(item.tx_hash)
    return [movement(name, "gas_spent", walk.id, None, cost, reference=item.tx_hash)] if cost else []


def _place(item: Item) -> tuple[int, int]:
    return item.block_number, item.log_index


def _positive(rows: list[NewMovement]) -> list[NewMovement]:
    return [row for row in rows if row.amount_wei > 0]
