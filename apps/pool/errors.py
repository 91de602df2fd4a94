"""Refusals of the pool."""

from apps.common.errors import Conflict


class RequestRejected(Conflict):
    """The request was refused and nothing was moved."""

    code = "request_rejected"


class InsufficientBalance(RequestRejected):
    """The user has less than this request asks for; nothing was moved."""

    code = "insufficient_balance"


class AmountTooSmall(RequestRejected):
    """What the position holds is below the least amount that can be unstaked (100 wei); nothing was moved."""

    code = "amount_too_small"


class AmountTooLarge(RequestRejected):
    """The position is worth more than one unstake can ask for (100,000 ETH): ask for parts of it; nothing was moved."""

    code = "amount_too_large"


class NotCancellable(Conflict):
    """Only a queued request can be cancelled; this one is past that, or ended."""

    code = "not_cancellable"


class NotRetryable(Conflict):
    """Only a request in needs_attention can be retried."""

    code = "not_retryable"


REJECTIONS: dict[str, type[RequestRejected]] = {
    cls.code: cls for cls in (RequestRejected, InsufficientBalance, AmountTooSmall, AmountTooLarge)
}
