"""Refusals of protocols: which switch is off, or what the chain would not take."""

from apps.common.errors import Conflict, InvalidInput, Unavailable


class StakingPaused(Conflict):
    """Staking is paused by the protocol."""

    code = "staking_paused"


class ProtocolStopped(Conflict):
    """The protocol is stopped."""

    code = "protocol_stopped"


class QueuePaused(Conflict):
    """The withdrawal queue is paused."""

    code = "queue_paused"


class StakeLimitExceeded(Conflict):
    """The amount is above the protocol's present stake limit."""

    code = "stake_limit_exceeded"


class OperatorUnderfunded(Conflict):
    """The operator's address holds less ETH than this needs."""

    code = "operator_underfunded"


class AllowanceInsufficient(Conflict):
    """The withdrawal queue may not take that much stETH of the operator yet; approve first."""

    code = "allowance_insufficient"


class StethInsufficient(Conflict):
    """The operator holds less stETH than is to be requested; `errors.missing_wei` says how much less."""

    code = "steth_insufficient"


class TooManyElements(InvalidInput):
    """One transaction takes at most 100 elements."""

    code = "too_many_elements"


class WithdrawalNotFinalized(Conflict):
    """A withdrawal is not finalized yet; `errors.withdrawal_ids` names it."""

    code = "withdrawal_not_finalized"


class WithdrawalClaimed(Conflict):
    """A withdrawal was claimed already; `errors.withdrawal_ids` names it."""

    code = "withdrawal_claimed"


class WithdrawalNotOwned(Conflict):
    """A withdrawal belongs to another owner than the operator; `errors.withdrawal_ids` names it."""

    code = "withdrawal_not_owned"


class WithdrawalUnknown(InvalidInput):
    """A withdrawal id does not exist; `errors.withdrawal_ids` names it."""

    code = "withdrawal_unknown"


class CustodyRefusesEth(Conflict):
    """Custody does not take the ETH of a claim: it is a contract that refuses it, or needs more gas than it is given."""

    code = "custody_refuses_eth"


class WouldRevert(Conflict):
    """The transaction would revert; the detail carries the decoded reason."""

    code = "would_revert"


class DifferenceUnproved(Conflict):
    """The operator's shares did not change by that much without a log in this block; the detail says what was found."""

    code = "difference_unproved"


class ChainReorganized(Conflict):
    """A block that was read at the money horizon has left the chain; ops decide."""

    code = "chain_reorganized"


class HistoryIncomplete(Unavailable):
    """The logs that the nodes show do not make up the operator's history: some are missing, or do not belong to it.
    Nothing of that range is stored; it is read again at every call, and goes on by itself once a node shows all."""

    code = "history_incomplete"
