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
    """Another sender has used this key, and what it signed is not recorded here. Once the cause is known, release the key."""

    code = "signer_quarantined"


class SignerDoubted(Conflict):
    """A node shows a transaction of this key that is not recorded here. Until later blocks confirm or refute that, nothing of
    the key is decided. Ask again after a few blocks."""

    code = "signer_doubted"


class NotQuarantined(Conflict):
    """Only a quarantined key can be released."""

    code = "not_quarantined"


class SignerNotAtRest(Conflict):
    """The key has something under way, or too few endpoints agree that it has not; the detail says what."""

    code = "signer_not_at_rest"


class NonceUserUnknown(Conflict):
    """What used a nonce of this key cannot be told for certain, so nothing was changed; ask a node with older state."""

    code = "occupant_unknown"


class ReleaseUnfinished(Conflict):
    """More nonces were lost than one call looks up; what was found is recorded. Call again."""

    code = "release_unfinished"
