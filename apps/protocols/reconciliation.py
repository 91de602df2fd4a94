"""Books against chain at one block, to the wei. Gathering asks chain and ledger; judging is plain arithmetic."""

from collections.abc import Mapping
from dataclasses import dataclass

from apps.clients.base import pages
from apps.clients.ledger import LedgerClient
from apps.clients.shapes.ledger import MovementPage
from apps.clients.shapes.reconciliation import ReconciliationLine, RewardSums
from apps.common.database import Sessions, transaction
from apps.common.errors import InvalidInput
from apps.common.wire import format_time
from apps.protocols.chain import Block, Chain
from apps.protocols.history import History
from apps.protocols.recorded import flow_sums, open_withdrawals
from apps.protocols.state import block_time, read_state
from apps.protocols.withdrawals import read_statuses

IDS_PER_CALL = 1_000
UNKNOWN_USER = "nobody"  # a balance tells the ledger's time, and that of an unknown user is all zeros
STETH_ACCOUNTS = ("@rewards", "@fees", "@rounding", "@losses")


@dataclass(frozen=True)
class Facts:
    """What was found at one block and in the ledger."""

    block: Block
    custody_wei: int
    operator_wei: int
    steth_wei: int
    shares: int
    pooled_wei: int
    shares_by_kind: Mapping[str, int]
    faces_stored: Mapping[int, int]
    faces_on_chain: Mapping[int, int]
    buckets: Mapping[str, int]
    system: Mapping[str, int]
    sum_wei: int
    audit_differences: int
    later_deposits_wei: int


def gather(
    chain: Chain, history: History, ledger: LedgerClient, sessions: Sessions, pool_id: str, number: int | None
) -> Facts:
    """Read everything at one block: the given one, or the horizon. Raises when chain or ledger does not answer, and
    for a block above the horizon: its share flows are not known yet."""
    behind = _ledger_behind(chain, ledger, pool_id)
    horizon = history.scan()
    if number is not None and number > horizon.number:
        raise InvalidInput(errors={"block": [f"Must be at most {horizon.number}, the money horizon."]})
    at = horizon.number if number is None else number
    block = chain.block(at, history.known_hash(at))
    state = read_state(chain, block.number, block.hash)
    with transaction(sessions) as session:
        by_kind = flow_sums(session, block.number)
        stored = open_withdrawals(session, block.number)
    on_chain: dict[int, int] = {}
    ids = sorted(stored)
    for start in range(0, len(ids), IDS_PER_CALL):
        for status in (found.status for found in read_statuses(chain, ids[start : start + IDS_PER_CALL], block)):
            if status.owner == chain.operator and not status.claimed:
                on_chain[status.withdrawal_id] = status.amount_wei
    totals = ledger.totals(pool_id)
    return Facts(
        block=block,
        custody_wei=state.custody.eth_wei,
        operator_wei=0 if chain.custody == chain.operator else state.operator.eth_wei,
        steth_wei=state.operator.steth_wei,
        shares=state.operator.shares,
        pooled_wei=state.total_pooled_ether_wei,
        shares_by_kind=by_kind,
        faces_stored=stored,
        faces_on_chain=on_chain,
        buckets={
            "available": totals.available_wei,
            "reserved": totals.reserved_wei,
            "staked": totals.staked_wei,
            "unstaking": totals.unstaking_wei,
        },
        system=totals.system,
        sum_wei=totals.sum_wei,
        audit_differences=len(ledger.audit(pool_id, full=False).differences),
        later_deposits_wei=_later_deposits(ledger, pool_id, block.timestamp - behind),
    )


def judge(facts: Facts, rewards: RewardSums | None) -> list[ReconciliationLine]:
    """The lines of a reconciliation; every tolerance is zero."""
    system = {**dict.fromkeys(("@payouts", "@gas", *STETH_ACCOUNTS), 0), **facts.system}
    buckets = facts.buckets
    owed_eth = (
        buckets["available"] + buckets["reserved"] + system["@payouts"] + system["@gas"] - facts.later_deposits_wei
    )
    held_eth = facts.custody_wei + facts.operator_wei
    surplus = max(0, held_eth - owed_eth)
    faces = sum(facts.faces_stored.values())
    owed_steth = buckets["staked"] + buckets["unstaking"] + sum(system[name] for name in STETH_ACCOUNTS)
    kinds = facts.shares_by_kind
    met = kinds.get("submit", 0) + kinds.get("foreign_in", 0) - kinds.get("request", 0) - kinds.get("foreign_out", 0)
    met += kinds.get("accepted", 0)
    lines = [
        _line("eth", owed_eth, held_eth - surplus),
        # More than the books know is a deposit that the backend has not posted yet: shown, and no drift.
        _line("unidentified", 0, surplus, ok=True),
        _line("lido", owed_steth, facts.steth_wei + faces),
        _line("shares", met, facts.shares),
        _line("nfts", faces, sum(facts.faces_on_chain.values())),
        _line("books", 0, facts.sum_wei),
        _line("audit", 0, facts.audit_differences),
    ]
    if rewards is not None:
        lines.append(_line("rewards", rewards.owed_wei, system["@rewards"]))
        lines.append(_line("weight", rewards.weight_wei, buckets["staked"] + buckets["unstaking"] - faces))
    lines += [
        _line("custody_eth", facts.custody_wei, facts.custody_wei),
        _line("ledger_total_staked", buckets["staked"], buckets["staked"]),
        _line("lido_pooled_ether", facts.pooled_wei, facts.pooled_wei),
    ]
    return lines


def _line(name: str, expected: int, found: int, *, ok: bool | None = None) -> ReconciliationLine:
    return ReconciliationLine(
        name=name,
        expected_wei=expected,
        found_wei=found,
        drift_wei=found - expected,
        tolerance_wei=0,
        ok=found == expected if ok is None else ok,
    )


def _ledger_behind(chain: Chain, ledger: LedgerClient, pool_id: str) -> float:
    """Seconds by which the ledger's clock is behind the chain's, but for what has passed since the latest block; 0 where
    it is not.

    Two hosts' clocks need not agree. By a ledger whose clock is behind, what was posted after a block seems older than it:
    its ETH would be looked for in that block, and be missing.
    """
    head = chain.block().timestamp
    now = ledger.balance(pool_id, UNKNOWN_USER).as_of.timestamp()
    return max(0.0, head - now)


def _later_deposits(ledger: LedgerClient, pool_id: str, timestamp: float) -> int:
    """Deposits and gas floats posted after this time: their ETH need not be in the block. Counted off, it can only show
    as more."""
    since = format_time(block_time(timestamp))
    total = 0
    for kind in ("deposit", "gas_float"):

        def read(after: str | None, kind: str = kind) -> MovementPage:
            return ledger.movements(pool_id=pool_id, kind=kind, created_after=since, limit=200, after=after)

        total += sum(item.amount_wei for page in pages(read) for item in page)
    return total
