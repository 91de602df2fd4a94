"""Refusals of the relayer's HTTP face."""

from apps.common.errors import Conflict, NotFound


class TransactionNotFound(NotFound):
    """No message with this message_id was ever accepted."""

    code = "transaction_not_found"


class SignerNotFound(NotFound):
    """No key of this address has been used here yet."""

    code = "signer_not_found"


class AlreadyFinal(Conflict):
    """The message has ended, and an end is final."""

    code = "already_final"


class NotSigned(Conflict):
    """The message has no signature yet whose price could be raised; it will be signed at the market's price."""

    code = "not_signed"


class BeingReplaced(Conflict):
    """An empty transaction already races this message for its nonce, so its own price is raised no more."""

    code = "being_replaced"


class SignerQuarantined(Conflict):
    """Somebody else has used this key: what they signed nobody here knows, so it never signs again. Use a new key."""

    code = "signer_quarantined"
