"""Which states there are, what may follow what, and what is final: the one place that every other set derives from.

The names and their meanings are in `apps.clients.shapes.relayer`, as callers see them. The database enforces part of this,
too: its constraints know these names, and its triggers let no final message change.
"""

from collections.abc import Mapping
from enum import StrEnum

from apps.clients.shapes.relayer import AttemptKind, Intent, SignerState, TransactionStatus

_ENDS = frozenset(
    {
        TransactionStatus.CONFIRMED,
        TransactionStatus.REVERTED,
        TransactionStatus.CANCELLED,
        TransactionStatus.EXPIRED,
        TransactionStatus.REJECTED,
        TransactionStatus.CONFLICT,
    }
)

# What may follow each status of a message. A status that nothing follows is final.
NEXT: Mapping[TransactionStatus, frozenset[TransactionStatus]] = {
    # It is signed, or it ends without a nonce. `conflict`: another sender has done the very same already.
    TransactionStatus.QUEUED: frozenset(
        {
            TransactionStatus.SIGNED,
            TransactionStatus.CANCELLED,
            TransactionStatus.EXPIRED,
            TransactionStatus.REJECTED,
            TransactionStatus.CONFLICT,
        }
    ),
    # Whatever a node answered or did not answer, the bytes may be mined, and even be final when first seen so.
    TransactionStatus.SIGNED: frozenset({TransactionStatus.BROADCAST, TransactionStatus.MINED}) | _ENDS,
    TransactionStatus.BROADCAST: frozenset({TransactionStatus.MINED}) | _ENDS,
    # Back to `broadcast` when its block leaves the chain.
    TransactionStatus.MINED: frozenset({TransactionStatus.BROADCAST}) | _ENDS,
    TransactionStatus.CONFIRMED: frozenset(),
    TransactionStatus.REVERTED: frozenset(),
    TransactionStatus.CANCELLED: frozenset(),
    TransactionStatus.EXPIRED: frozenset(),
    TransactionStatus.REJECTED: frozenset(),
    TransactionStatus.CONFLICT: frozenset(),
}
STATUSES = tuple(NEXT)
FINAL = tuple(status for status in NEXT if not NEXT[status])
UNFINISHED = tuple(status for status in NEXT if NEXT[status])
# It has a nonce and is not final.
OPEN = tuple(status for status in UNFINISHED if status is not TransactionStatus.QUEUED)
# It has a nonce and was seen in no block.
UNMINED = tuple(status for status in OPEN if status is not TransactionStatus.MINED)
# It ended, and its value did not leave the signer by it.
WITHOUT_EFFECT = tuple(status for status in FINAL if status is not TransactionStatus.CONFIRMED)

# What a message ends as when the empty transaction that its intent asked for was mined. With intent `none` no empty
# transaction is ever signed; were one mined all the same, the message would have been taken back.
END_OF_INTENT: Mapping[Intent, TransactionStatus] = {
    Intent.NONE: TransactionStatus.CANCELLED,
    Intent.CANCEL: TransactionStatus.CANCELLED,
    Intent.EXPIRE: TransactionStatus.EXPIRED,
    Intent.REJECT: TransactionStatus.REJECTED,
}

# A key has a row, and so one of these states, once its nonce was read from the chain.
STORED_SIGNER_STATES = tuple(state for state in SignerState if state is not SignerState.NEW)
# What has a nonce of such a key may be given a higher price or an empty transaction.
REPLACING = (SignerState.ACTIVE, SignerState.DRAINING)


class NonceState(StrEnum):
    """How a nonce that was given to a message stands (column `slots.state`)."""

    OPEN = "open"  # used by no transaction at or below the money horizon
    SETTLED = "settled"  # used by one of the message's own attempts
    EXTERNAL = "foreign"  # used by a transaction that another sender made with the same key


__all__ = [
    "END_OF_INTENT",
    "FINAL",
    "NEXT",
    "OPEN",
    "REPLACING",
    "STATUSES",
    "STORED_SIGNER_STATES",
    "UNFINISHED",
    "UNMINED",
    "WITHOUT_EFFECT",
    "AttemptKind",
    "Intent",
    "NonceState",
    "SignerState",
    "TransactionStatus",
]
