"""Refusals of the ledger; each is final for its message_id."""

from apps.common.errors import Conflict


class InsufficientBalance(Conflict):
    """The bucket that the amount comes from holds less."""

    code = "insufficient_balance"


class AlreadyReversed(Conflict):
    """This movement was reversed before; a movement is reversed at most once."""

    code = "already_reversed"


class NotReversible(Conflict):
    """A reversal names the message_id of an existing movement that is no reversal, with its user and amount."""

    code = "not_reversible"
