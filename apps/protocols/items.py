"""One item of the operator's history: as it is read from logs, as it is stored, and as it is shown."""

from dataclasses import dataclass

from apps.clients.shapes.history import HistoryItem, Rebase, RebaseTotals
from apps.protocols.models import ShareEvent

_OUTWARD = frozenset({"request", "foreign_out"})


@dataclass(frozen=True)
class Item:
    """The columns of a `ShareEvent`; two that differ in anything are two items.

    `shares` came in or went out, by `kind`; `amount_wei` is their stETH, of a claim the ETH paid. Of a rebase alone are
    `reward_wei`, signed, and `rebase`.
    """

    block_number: int
    log_index: int
    block_hash: str
    tx_hash: str
    kind: str
    shares: int | None = None
    amount_wei: int | None = None
    withdrawal_id: int | None = None
    reward_wei: int | None = None
    rebase: RebaseTotals | None = None

    @property
    def place(self) -> tuple[int, int]:
        return self.block_number, self.log_index

    @property
    def moved(self) -> int:
        """Shares that it brought the operator, below zero where it took them."""
        shares = self.shares or 0
        return -shares if self.kind in _OUTWARD else shares


def stored(row: ShareEvent) -> Item:
    """The item in a row."""
    return Item(
        block_number=row.block_number,
        log_index=row.log_index,
        block_hash=row.block_hash,
        tx_hash=row.tx_hash,
        kind=row.kind,
        shares=row.shares,
        amount_wei=row.amount_wei,
        withdrawal_id=row.withdrawal_id,
        reward_wei=row.reward_wei,
        rebase=row.rebase,
    )


def shown(item: Item) -> HistoryItem:
    """The item as callers are shown it."""
    return HistoryItem(
        kind=item.kind,
        block_number=item.block_number,
        block_hash=item.block_hash,
        tx_hash=item.tx_hash,
        log_index=item.log_index,
        shares=item.shares,
        amount_wei=item.amount_wei,
        rebase=shown_rebase(item),
    )


def shown_rebase(item: Item) -> Rebase | None:
    """Lido's report in an item; None where the item is another thing."""
    if item.rebase is None or item.reward_wei is None:
        return None
    return Rebase(
        block_number=item.block_number,
        block_hash=item.block_hash,
        tx_hash=item.tx_hash,
        log_index=item.log_index,
        **vars(item.rebase),
        reward_wei=item.reward_wei,
    )
