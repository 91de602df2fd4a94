"""Refusals of the pool."""

from apps.common.errors import Conflict, InvalidInput


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


class DepositPosted(RequestRejected):
    """This transaction's ETH is in the books already; the detail says under which name."""

    code = "deposit_posted"


class DepositNotFinal(Conflict):
    """No block at or below the money horizon holds this transaction yet; ask again once it is that deep."""

    code = "deposit_not_final"


class NotADeposit(InvalidInput):
    """This transaction brought custody no ETH of a user; `errors.tx_hash` says why."""

    code = "not_a_deposit"


class AddressNotAllowed(Conflict):
    """The payee is not among the user's payout addresses; add it first."""

    code = "address_not_allowed"


class AddressNotUsableYet(Conflict):
    """The payee was added too short a time ago; the detail says from when on it can be paid."""

    code = "address_not_usable_yet"


class AddressAllowedAlready(Conflict):
    """The address is among the user's payout addresses already."""

    code = "address_allowed_already"


class PayoutTargetRefused(InvalidInput):
    """No user can be paid there: a contract, an address of the house, of the protocol or of the chain; `errors` says which."""

    code = "payout_target_refused"


class PayoutUserLimit(Conflict):
    """The user's payouts of the last 24 hours and this one are more than a user may have; the detail says what is left."""

    code = "payout_user_limit"


class PayoutHouseLimit(Conflict):
    """All payouts of the last 24 hours and this one are more than the house pays out; the detail says what is left."""

    code = "payout_house_limit"


class NotApproving(Conflict):
    """Only a payout that waits for a second person can be approved or rejected."""

    code = "not_approving"


class PayoutNotMatching(Conflict):
    """The payout cannot be decided like that: it is not parked, or the chain or the relayer says otherwise; see the detail."""

    code = "payout_not_matching"


class NotCancellable(Conflict):
    """Only a queued request can be cancelled, and a payout that was not handed to the relayer; this one is past that."""

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
    cls.code: cls for cls in (RequestRejected, InsufficientBalance, AmountTooSmall, AmountTooLarge, DepositPosted)
}
