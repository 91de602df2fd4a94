"""What a node's refusal means, as data: limits of its provider, state it no longer keeps, methods it has not.

Matched lower-cased, by substring, in this order; by code only where the code has one meaning everywhere. What a node says
to a broadcast is another matter and stands in ``relayer/chain/replies.py``.
"""

from enum import StrEnum


class Trouble(StrEnum):
    """`OTHER` is everything that no provider's limit explains, a revert among them."""

    RATE = "rate limit"
    BATCH = "batch size limit"
    SIZE = "response size limit"
    RANGE = "log range limit"
    PRUNED = "keeps no state that old"
    MISSING = "has no such method or block tag"
    BEHIND = "does not know the block"
    OTHER = "other"


_METHOD_NOT_FOUND = -32601
_CODES = {429: Trouble.RATE, -32097: Trouble.RATE, _METHOD_NOT_FOUND: Trouble.MISSING}
_TABLE: tuple[tuple[Trouble, tuple[str, ...]], ...] = (
    (Trouble.OTHER, ("revert",)),
    (Trouble.RATE, ("rate limit", "rate exceeded", "too many requests", "compute units", "request limit",
                    "daily request count", "throttl", "requests per second", "over capacity", "call rate",
                    "quota", "exceeded its throughput", "credits")),
    (Trouble.BATCH, ("batch",)),
    (Trouble.SIZE, ("response too large", "response is too big", "response size", "response exceeds", "payload too large",
                    "content too large", "entity too large")),
    (Trouble.RANGE, ("block range", "range is too", "range too", "ranges over", "query returned more than", "query exceeds",
                     "too many results", "too many logs", "limited to a", "max results", "query timeout",
                     "result limit", "exceed max", "exceeds the range", "logs are limited")),
    (Trouble.PRUNED, ("missing trie node", "pruned", "historical state", "state not available", "state is not available",
                      "state unavailable", "no state available", "maximum proof window", "old data not available",
                      "archive", "state already been", "history has been", "state histories haven't been")),
    (Trouble.BEHIND, ("header not found", "unknown block", "block not found", "could not find block", "blockoutofrange",
                      "block out of range", "beyond current head", "past head", "resource not found",
                      "cannot query unfinalized", "block is not available", "invalid block range params",
                      "unknown header", "no block with")),
    (Trouble.MISSING, ("method not found", "does not exist/is not available", "not supported", "unsupported method",
                       "not whitelisted", "is not available on", "method is not available", "cannot unmarshal object",
                       "invalid block tag")),
)  # fmt: skip


def trouble(code: int, message: str) -> Trouble:
    """The class of an error answer."""
    text = " ".join(message.lower().split())
    for kind, patterns in _TABLE:
        if any(pattern in text for pattern in patterns):
            return kind
    return _CODES.get(code, Trouble.OTHER)
