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


class UserOnHold(Conflict):
    """Ops keep this user from this action; ask again, under the same message_id, when the hold is released."""

    code = "user_on_hold"


class HoldReleased(Conflict):
    """This hold has been released before, by somebody else or for another reason."""

    code = "hold_released"


class LaterRelease(Conflict):
    """A later release made this request, with steps that this one does not know; send the same call again until a service
    of that release takes it."""

    code = "later_release"


class NotHalted(Conflict):
    """The walk is not halted, so there is nothing to resolve; see GET /v1/walk."""

    code = "not_halted"


class HaltDiffers(Conflict):
    """The walk stands still at something else; read GET /v1/walk again, and say what happened there."""

    code = "halt_differs"


class BatchNotMatching(Conflict):
    """This batch cannot have made that transaction; the detail says why."""

    code = "batch_not_matching"


class BatchHasEffect(Conflict):
    """A transaction of this batch took effect, or may still; it cannot be released. The detail names it."""

    code = "batch_has_effect"


class ItemBooked(Conflict):
    """This item of the history is booked already."""

    code = "item_booked"


class SecondPersonNeeded(Conflict):
    """A second person must decide: `by` is who proposed it."""

    code = "second_person_needed"


class AlreadyDecided(Conflict):
    """This resolution has been decided, and perhaps acted on."""

    code = "already_decided"


class TooManyWebhooks(Conflict):
    """There are as many webhooks as there may be; delete one first."""

    code = "too_many_webhooks"


class WebhookNotEnabled(Conflict):
    """Nothing is sent to this webhook now; enable it first."""

    code = "webhook_not_enabled"


class NotDeadLetter(Conflict):
    """This webhook has no dead letter with this id."""

    code = "not_a_dead_letter"


REJECTIONS: dict[str, type[RequestRejected]] = {
    cls.code: cls for cls in (RequestRejected, InsufficientBalance, AmountTooSmall, AmountTooLarge)
}
