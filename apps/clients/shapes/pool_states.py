"""The kinds and statuses that the pool's answers name, each with its meaning. What may follow what, and what is an end, is
said by `apps.pool.states`."""

from apps.common.states import Status


class RequestKind(Status):
    """What a user asks for."""

    STAKE = "stake", "The user's ETH becomes stETH of the operator, in one submit with others'."
    UNSTAKE = "unstake", "The user's stETH goes to Lido's withdrawal queue, and comes back as ETH."
    REWARD_CLAIM = "reward_claim", "The user's settled rewards become principal of their stake."
    PAYOUT = "payout", "The user's available ETH leaves custody for an address that the user has allowed."
    DEPOSIT = "deposit", "ETH that arrived in custody becomes the user's, by the hash of its transaction."


class RequestStatus(Status):
    """How a request stands."""

    RESERVING = "reserving", "The ledger is asked to set the amount aside."
    QUEUED = "queued", "Set aside; waits for its batch. The only status in which the user may cancel."
    BATCHED = "batched", "Part of a batch that is being prepared."
    SUBMITTING = "submitting", "The batch's submit is built and on its way to the relayer."
    CONFIRMING = "confirming", "The relayer has the transaction; the walk has not met it yet."
    REQUESTING = "requesting", "Out of the reward index; the withdrawal is being requested from Lido."
    WAITING = "waiting", "Lido holds the withdrawal; it pays in its own order."
    CLAIMING = "claiming", "Lido has paid; the claim that brings the ETH to custody is on its way."
    SETTLING = "settling", "The reward index is asked what the user has earned."
    APPROVING = "approving", "Set aside; a second person decides whether it is paid out."
    SENDING = "sending", "The payee is looked at once more, then the transfer is handed to the relayer."
    BOOKING = "booking", "The ledger is asked to book the deposit."
    COMPLETED = "completed", "Done, and in the books."
    REJECTED = "rejected", "Refused by ledger or index; nothing was moved."
    CANCELLED = "cancelled", "Taken back before it was done; all of it was moved back."
    FAILED = "failed", "It could not be done; all of it was moved back."
    NEEDS_ATTENTION = "needs_attention", "It cannot heal by itself: ops decide."

    @property
    def event_type(self) -> str:
        """The type of the event that tells of it, in the feed and by webhook."""
        return f"request.{self}"


class BatchKind(Status):
    """What a batch does on chain."""

    STAKE = "stake", "Stakes that share one submit."
    UNSTAKE = "unstake", "Unstakes that share one request to Lido's queue."
    CLAIM = "claim", "Withdrawal NFTs that are claimed together."


class BatchStatus(Status):
    """How a batch stands."""

    BATCHED = "batched", "Opened; funds, the index or the claim are being prepared."
    SUBMITTING = "submitting", "The submit is built and stored."
    CONFIRMING = "confirming", "The relayer has the submit; the walk has not met it yet."
    REQUESTING = "requesting", "Out of the reward index; the withdrawal is being requested."
    CLAIMING = "claiming", "The claim is built; the walk has not met its logs yet."
    COMPLETED = "completed", "The walk has booked what it did on chain."
    FAILED = "failed", "It did nothing on chain; its requests went back to where they waited, or ended."
    NEEDS_ATTENTION = "needs_attention", "It cannot heal by itself: ops decide."


class WalkStatus(Status):
    """Whether the walk goes on."""

    WALKING = "walking", "Books what the chain holds, in its order, up to the money horizon."
    HALTED = "halted", "Cannot go on without ops or without a cause being mended; see its halt."


class ResolutionStatus(Status):
    """How far a decision of ops about a halt or a parked batch has come."""

    PROPOSED = "proposed", "One person has said it; a second one is asked for."
    APPROVED = "approved", "Decided; the walk or the batch has not acted on it yet."
    REJECTED = "rejected", "Taken back before anything was done about it."
    APPLIED = "applied", "The walk or the batch has acted on it."


class WebhookStatus(Status):
    """Whether events are sent to an endpoint."""

    ENABLED = "enabled", "Events are sent, and again until they are taken."
    DISABLED = "disabled", "Nothing is sent; it goes on from where it stopped once it is enabled."
    NEEDS_ATTENTION = "needs_attention", "A defect keeps it from being worked on; enabling it tries again."
    DELETED = "deleted", "Nothing is sent any more, its secrets are gone, and nobody is shown it."


class DeliveryStatus(Status):
    """How far an event has come on its way to an endpoint."""

    PENDING = "pending", "Not taken yet: it is sent again, or waits for an earlier event of its request."
    DELIVERED = "delivered", "The endpoint answered 2xx."
    DEAD_LETTER = "dead_letter", "Given up after three days; sent again once somebody says so."
