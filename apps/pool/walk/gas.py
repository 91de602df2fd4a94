"""The relayer's settled transactions in the books: what each has cost, by signer and nonce, and what payouts have paid.

Both are booked in one call, before the walk passes their block: at every block that it closes, the ETH in the books is the
ETH on chain.
"""

from apps.clients.base import pages
from apps.clients.ledger import movement
from apps.clients.shapes.relayer import Transaction
from apps.common.database import transaction
from apps.pool import effects
from apps.pool.context import PoolContext
from apps.pool.flows.payout import complete_paid, paid_among, paid_rows
from apps.pool.models import Walk
from apps.pool.states import SIGNED_AND_OPEN
from apps.pool.walk.booking import post_effects, write_walk

OPEN_AT_THE_RELAYER = ",".join(sorted(SIGNED_AND_OPEN))


def gas_target(context: PoolContext, horizon: int) -> int:
    """The highest block up to which the relayer has settled everything it sent; at most the horizon.

    Each transaction still open at the relayer carries `observed_block`: the highest block at the relayer's horizon at
    which its nonce was certainly unused. One signed after this question cannot be in a block that was at the horizon
    before it. One question for all open statuses: between two questions a transaction could pass from one to the other.
    """
    return min([horizon, *(item.observed_block or 0 for item in _all(context, status=OPEN_AT_THE_RELAYER))])


def book_gas(context: PoolContext, walk: Walk, up_to_block: int) -> None:
    """Book the gas of every settled transaction up to a block, whoever signed it, and the transfers of payouts among them."""
    start = int(walk.gas_cursor or 0)
    if up_to_block <= start:
        return
    settled = _all(context, from_block=start + 1, to_block=up_to_block)
    paid = paid_among(context, walk.id, settled)
    rows = [
        movement(
            effects.gas(item.sender, _nonce_of(item)),
            "gas_spent",
            walk.id,
            None,
            item.gas_cost_wei,
            reference=item.tx_hash,
        )
        for item in settled
        if item.gas_cost_wei is not None and item.gas_cost_wei > 0
    ]
    post_effects(context, walk, [*rows, *paid_rows(walk.id, paid)])
    with transaction(context.sessions) as session:
        write_walk(context, session, walk, gas_cursor=str(up_to_block))
        complete_paid(session, paid)


def _all(context: PoolContext, **query: str | int) -> list[Transaction]:
    found = pages(lambda after: context.relayer.transactions(limit=200, after=after, **query))
    return [item for page in found for item in page]


def _nonce_of(item: Transaction) -> int:
    # It has paid for gas: left out in silence, that would be missing from the books for good.
    assert item.nonce is not None
    return item.nonce
