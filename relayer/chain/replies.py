"""What a node's reply to ``eth_sendRawTransaction`` means, as data.

Matched lower-cased, white space collapsed, by substring, the longer text before the one it contains; never by code, as
clients share codes between meanings. No class leads to a new nonce: an error does not prove that no node has the bytes.
"""

from enum import StrEnum


class Reply(StrEnum):
    ACCEPTED = "accepted"
    KNOWN = "known"
    NONCE_LOW = "nonce_low"
    NONCE_HIGH = "nonce_high"
    REPLACEMENT_UNDERPRICED = "replacement_underpriced"
    UNDERPRICED = "underpriced"
    POOL_BUSY = "pool_busy"
    FUNDS = "funds"
    NODE_FEE_CAP = "node_fee_cap"
    BAD_GAS = "bad_gas"
    BAD_TX = "bad_tx"
    NODE_NOT_READY = "node_not_ready"
    AMBIGUOUS = "ambiguous"


# These nodes hold the bytes.
DELIVERED = frozenset({Reply.ACCEPTED, Reply.KNOWN})

_TABLE: tuple[tuple[Reply, tuple[str, ...]], ...] = (
    (Reply.BAD_TX, ("unknown transaction type",)),
    (Reply.NODE_NOT_READY, ("node is syncing", "initial sync is still in progress", "transaction pool not enabled",
                            "timeout expired")),
    (Reply.KNOWN, ("already known", "alreadyknown", "already_exists", "existing txn with same hash",
                   "known transaction", "already imported", "already in mempool", "already exists in cache")),
    (Reply.REPLACEMENT_UNDERPRICED, ("replacement transaction underpriced", "could not replace existing tx",
                                     "replacementnotallowed", "future transaction tries to replace pending",
                                     "another transaction with same nonce in the queue")),
    (Reply.NODE_FEE_CAP, ("exceeds the configured cap", "transaction fee cap exceeded")),
    (Reply.BAD_GAS, ("intrinsic gas", "floor data gas", "exceeds block gas limit", "gas limit too high",
                     "gas limit reached", "gaslimitexceeded", "intrinsicgas", "gasuintoverflow",
                     "gas limit is too high", "transaction gas limit", "exceeds max transaction gas limit")),
    (Reply.NONCE_HIGH, ("nonce too high", "gapped nonce", "gapped-nonce", "nonce too far in", "noncegap",
                        "noncetoofarinfuture", "nonce is too distant", "transaction with a lower nonce exists",
                        "nonce is too high", "exceeds next nonce", "nonce out of range", "tx-nonce-too-high")),
    (Reply.NONCE_LOW, ("nonce too low", "oldnonce", "ownnoncealreadyused", "nonce is too low")),
    (Reply.FUNDS, ("insufficient funds", "insufficientfunds", "upfront cost exceeds account balance",
                   "transaction overdraws from account")),
    (Reply.POOL_BUSY, ("txpool is full", "account limit exceeded", "in-flight transaction limit", "already reserved",
                       "pending transaction type conflict", "conflictingtype", "pendingtxsofothertype",
                       "sub-pool is full", "spammer", "too many transactions in the queue", "queue full")),
    (Reply.UNDERPRICED, ("transaction underpriced", "gas price below", "below minimum required priority fee",
                         "max fee per gas less than block base fee", "feetoolow", "fee_too_low", "fee too low",
                         "transaction gas price")),
    (Reply.BAD_TX, ("invalid sender", "oversized data", "max initcode size", "negative value", "nonce has max value",
                    "transaction type not supported", "unsupported transaction type", "higher than max fee per gas",
                    "only replay-protected", "sender not an eoa", "sender is not an eoa", "failed to recover sender",
                    "failedtoresolvesender", "transaction invalid", "transaction too large", "maxtxsizeexceeded",
                    "rlptoolong", "initcode too large", "invalid chain id", "wrong chainid", "invalid signature",
                    "invalid transaction signature", "failed to decode", "sender account not authorized")),
)  # fmt: skip


def classify(message: str) -> Reply:
    """The class of an error text; an unknown text is ambiguous, which is treated as delivered."""
    text = " ".join(message.lower().split())
    for reply, patterns in _TABLE:
        if any(pattern in text for pattern in patterns):
            return reply
    return Reply.AMBIGUOUS
