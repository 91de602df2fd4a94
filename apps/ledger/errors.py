"""Refusals of the ledger; each is final for its message_id."""

from decimal import Decimal

from apps.common.errors import Conflict


class InsufficientBalance(Conflict):
    """The bucket that the amount comes from holds less."""

    code = "insufficient_balance"


class BalanceTooLarge(Conflict):
    """The bucket that the amount goes to would hold 2^256 wei or more."""

    code = "balance_too_large"


class AlreadyReversed(Conflict):
    """This movement was reversed before; a movement is reversed at most once."""

    code = "already_reversed"


class NotReversible(Conflict):
    """A reversal names the message_id of an existing movement that is no reversal, with its pool, user and amount."""

    code = "not_reversible"


_REFUSALS: dict[str, type[Conflict]] = {
    cls.code: cls for cls in (InsufficientBalance, BalanceTooLarge, AlreadyReversed, NotReversible)
}


def refusal(code: str, user_id: str | None, bucket: str | None, missing_wei: int | Decimal | None) -> Conflict:
    """The refusal of a code, in words: the same words from the same facts, at first and at every replay."""
    if bucket is not None and missing_wei is not None:
        return _REFUSALS[code](f"User {user_id} lacks {missing_wei} wei in {bucket}.")
    return _REFUSALS[code]()
