"""What the name of an effect says about whom it belongs to (`apps.pool.effects`): for people who look at the books."""

import re
from dataclasses import dataclass

_REQUEST = re.compile(r"(?:stake|unstake|reward-claim|payout):([0-9a-f-]{36})(?::.*)?|.*:cut:([0-9a-f-]{36})", re.ASCII)
_WITHDRAWAL = re.compile(r"settle:([0-9]+):.*", re.ASCII)
_DEPOSIT = re.compile(r"deposit:(0x[0-9a-f]{64})", re.ASCII)
_REBASE = re.compile(r"rebase:([0-9]+):([0-9]+)(?::.*)?", re.ASCII)


@dataclass(frozen=True)
class Cause:
    """What an effect belongs to, as far as its name says: a request, a withdrawal NFT, a deposit's transaction, a rebase's
    place on chain."""

    request_id: str | None = None
    tx_hash: str | None = None
    withdrawal_id: int | None = None
    block_number: int | None = None


def cause_of(message_id: str) -> Cause:
    """Read the name of an effect. For people who look at books, never for a decision: callers choose names, too."""
    patterns = (_REQUEST, _WITHDRAWAL, _DEPOSIT, _REBASE)
    request, withdrawal, deposited, at = (pattern.fullmatch(message_id) for pattern in patterns)
    return Cause(
        request_id=(request[1] or request[2]) if request else None,
        tx_hash=deposited[1] if deposited else None,
        withdrawal_id=int(withdrawal[1]) if withdrawal else None,
        block_number=int(at[1]) if at else None,
    )
