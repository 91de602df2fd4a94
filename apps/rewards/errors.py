"""Refusals of the rewards service; each is final for its message_id, but for those of a batch, which use none up."""

from apps.common.errors import Conflict


class InsufficientStake(Conflict):
    """The position holds less than the change would take out of it, or is worth less after a loss still pending."""

    code = "insufficient_stake"


class LossExceedsPosition(Conflict):
    """A parked loss to be released is greater than what those who would bear it are worth; nothing was changed."""

    code = "loss_exceeds_position"


class NothingStaked(Conflict):
    """No position of this pool has stake, so there is none to release parked rewards to."""

    code = "nothing_staked"


class InsufficientParked(Conflict):
    """Less is parked in this pool than was to be released."""

    code = "insufficient_parked"


class AmountOutOfRange(Conflict):
    """The result would leave the range of amounts (2^256 wei); nothing was changed."""

    code = "amount_out_of_range"
