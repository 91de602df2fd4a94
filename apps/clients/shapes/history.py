"""The operator's share history as protocols answers it, Lido's reports in it, and how ops repair it.

Hashes are ``0x`` hex, `shares` are Lido's internal units and no wei.
"""

import re
from dataclasses import dataclass

import marshmallow as ma

from apps.clients.shapes.protocols import BLOCK
from apps.common import wire
from apps.common.shapes import Digits, SignedWei, StrictInteger, Time, Wei, Whole, given
from apps.common.wei import SignedWeiField

# <block>:<log_index> of an item. A walk that has all of a block says the largest index, one that has none of it -1.
HISTORY_CURSOR = re.compile(r"(?:0|[1-9][0-9]{0,15}):(?:-1|0|[1-9][0-9]{0,9})", re.ASCII)

_REASON = ma.validate.Length(1, 1000)
_PERSON = ma.validate.Length(1, 200)


@dataclass(frozen=True, kw_only=True)
class HistoryQuery:
    """Items after ``<block>:<log_index>``."""

    limit: int = given(wire.limit_field, load_default=wire.DEFAULT_LIMIT)
    after: str | None = given(wire.cursor_field, regex=HISTORY_CURSOR, load_default=None)


@dataclass(frozen=True, kw_only=True)
class RebasesQuery(HistoryQuery):
    """Rebases above a block; of both, `after` counts."""

    after_block: int = given(wire.WholeField, load_default=-1, validate=ma.validate.Range(-1, wire.MAX_BLOCK))


@dataclass(frozen=True, kw_only=True)
class LogPlace:
    """Where a log stands in the chain."""

    block_number: Whole
    block_hash: str
    tx_hash: str
    log_index: Whole


@dataclass(frozen=True, kw_only=True)
class RebaseTotals:
    """The protocol's totals before and after a report of Lido's oracle. `operator_shares`: the operator's just before
    it."""

    time_elapsed_sec: Whole
    pre_total_shares: Digits
    pre_total_ether_wei: Wei
    post_total_shares: Digits
    post_total_ether_wei: Wei
    operator_shares: Digits


@dataclass(frozen=True, kw_only=True)
class Rebase(RebaseTotals, LogPlace):
    """A report of Lido's oracle, and what it made of the operator's shares: `reward_wei`, below zero for a loss."""

    reward_wei: SignedWei


@dataclass(frozen=True)
class HistoryItem:
    """One item of the operator's history. `kind`: ``submit``, ``request``, ``claim``, ``rebase``, ``foreign_in`` or
    ``foreign_out``.

    `shares` came in or went out, None for a claim and a rebase; `amount_wei` is their stETH, of a claim the ETH paid,
    None for a rebase. `rebase` is set for a rebase alone.
    """

    kind: str
    block_number: Whole
    block_hash: str
    tx_hash: str
    log_index: Whole
    shares: Digits | None
    amount_wei: Wei | None
    rebase: Rebase | None


@dataclass(frozen=True)
class Horizon:
    """The block up to which the history is complete: at most the money horizon."""

    block_number: Whole
    block_hash: str


@dataclass(frozen=True)
class History:
    """A page of the history in chain order; `next` is the cursor of the next page."""

    items: list[HistoryItem]
    next: str | None
    horizon: Horizon


@dataclass(frozen=True, kw_only=True)
class RebaseItem(Rebase):
    """A rebase as an item of the history, with the rebase's own fields beside it as well as in `rebase`."""

    kind: str
    shares: Digits | None
    amount_wei: Wei | None
    rebase: Rebase


@dataclass(frozen=True)
class RebasePage:
    """Rebases in chain order; `next` is the cursor of the next page."""

    items: list[RebaseItem]
    next: str | None


@dataclass(frozen=True)
class YearlyRate:
    """A rate over consecutive rebases. `apr` is a decimal fraction such as ``0.03210000``; `block_number`: the last
    rebase's."""

    apr: str
    rebases: Whole
    elapsed_sec: Whole
    block_number: Whole


@dataclass(frozen=True)
class Apr:
    """The users' yearly rate, by the last rebase and over seven days; None before there is one."""

    last: YearlyRate | None
    seven_day: YearlyRate | None


@dataclass(frozen=True, kw_only=True)
class NewRescan:
    """A range of blocks to read again, up to what is read so far where no `to_block` is named."""

    message_id: str = given(wire.message_id_field)
    from_block: int = given(StrictInteger, required=True, validate=BLOCK)
    to_block: int | None = given(StrictInteger, load_default=None, allow_none=True, validate=BLOCK)
    reason: str = given(ma.fields.String, required=True, validate=_REASON)
    requested_by: str = given(ma.fields.String, required=True, validate=_PERSON)


@dataclass(frozen=True)
class Rescan:
    """What reading a range again has added to the stored history and removed from it."""

    id: str
    message_id: str
    from_block: Whole
    to_block: Whole
    to_block_hash: str
    reason: str
    requested_by: str
    added: list[HistoryItem]
    removed: list[HistoryItem]
    created_at: Time


@dataclass(frozen=True)
class RescanPage:
    """Newest first; `next` is the cursor of the next page."""

    items: list[Rescan]
    next: str | None


@dataclass(frozen=True, kw_only=True)
class NewShareDifference:
    """Shares of the operator that came (or went, below zero) in a block without a log."""

    message_id: str = given(wire.message_id_field)
    block_number: int = given(StrictInteger, required=True, validate=ma.validate.Range(1, wire.MAX_BLOCK))
    shares: int = given(SignedWeiField, required=True)
    reason: str = given(ma.fields.String, required=True, validate=_REASON)
    requested_by: str = given(ma.fields.String, required=True, validate=_PERSON)


@dataclass(frozen=True)
class ShareDifference:
    """A difference that was checked against the chain and accepted."""

    message_id: str
    block_number: Whole
    shares: SignedWei
    reason: str
    requested_by: str
    created_at: Time
