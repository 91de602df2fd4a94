"""Refusals of the relayer's HTTP face."""

from apps.common.errors import Conflict, NotFound


class TransactionNotFound(NotFound):
    """No message with this message_id was ever accepted."""

    code = "transaction_not_found"


class AlreadySigned(Conflict):
    """The message is signed: its bytes may be mined at any time, so it cannot be taken back any more."""

    code = "already_signed"


class AlreadyFinal(Conflict):
    """The message has ended, and an end is final."""

    code = "already_final"


class NotSupported(Conflict):
    """The relayer does not replace fees on request; a message is sent again from its stored bytes until it is mined."""

    code = "not_supported"
