"""The name of every effect: one function for each, so that the two places that must agree on a name write none.

A name is the whole protection against doing a thing twice: the service that holds the effect takes it once, and answers
every repetition with what the first one did. Where an effect changes the ledger and the reward index, both take the same
name. The table in `docs/architecture.md` is written from these functions: what each does stands in its docstring, after
the services that take it.
"""

from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., str])

EFFECTS: list[Callable[..., str]] = []


def _effect(function: F) -> F:
    EFFECTS.append(function)
    return function


@_effect
def stake_reserve(request_id: str) -> str:
    """ledger: `stake_reserve`, available to reserved."""
    return f"stake:{request_id}:reserve"


@_effect
def stake_cancel(request_id: str) -> str:
    """ledger: `stake_release`, because the user took the stake back."""
    return f"stake:{request_id}:cancel"


@_effect
def stake_release(request_id: str) -> str:
    """ledger: `stake_release`, because the submit had no effect and will not be tried again."""
    return f"stake:{request_id}:release"


@_effect
def stake_confirm(request_id: str) -> str:
    """rewards, ledger: a stake delta and `stake_confirm`, once the walk has met the submit."""
    return f"stake:{request_id}:confirm"


@_effect
def auto_claim(user_preference_id: str, number: int) -> str:
    """pool: a reward claim that the user's preference asks for, numbered."""
    return f"auto-claim:{user_preference_id}:{number}"


@_effect
def unstake_settle(request_id: str, reservation: int) -> str:
    """rewards: what is pending becomes principal before the reservation with this number."""
    return f"unstake:{request_id}:settle:{reservation}"


@_effect
def unstake_start(request_id: str, reservation: int) -> str:
    """ledger, rewards: `unstake_start` and a stake delta, staked to exiting."""
    return f"unstake:{request_id}:start:{reservation}"


@_effect
def unstake_undo(request_id: str, reservation: int) -> str:
    """ledger: `unstake_cancel`, the reservation with this number taken back."""
    return f"unstake:{request_id}:undo:{reservation}"


@_effect
def unstake_cancel(request_id: str) -> str:
    """rewards, ledger: exiting to staked and `unstake_cancel`, because the user took the unstake back."""
    return f"unstake:{request_id}:cancel"


@_effect
def unstake_exit_claim(request_id: str, batch_id: str, settlement: int) -> str:
    """rewards: what is pending becomes principal before the batch's users leave the index."""
    return f"unstake:{request_id}:exit-claim:{batch_id}:{settlement}"


@_effect
def unstake_exit(request_id: str, batch_id: str) -> str:
    """rewards: the exiting wei leave the index."""
    return f"unstake:{request_id}:exit:{batch_id}"


@_effect
def unstake_restore(request_id: str, batch_id: str) -> str:
    """rewards: the exiting wei come back into the index, as the batch did nothing on chain."""
    return f"unstake:{request_id}:restore:{batch_id}"


@_effect
def unstake_too_small(request_id: str, batch_id: str) -> str:
    """rewards, ledger: what is too little to request is staked again, `unstake_cancel`."""
    return f"unstake:{request_id}:too-small:{batch_id}"


@_effect
def unstake_cut(request_id: str) -> str:
    """ledger: `unstake_cut`, the few wei that rounding left the operator short."""
    return f"unstake:{request_id}:cut"


@_effect
def payout_reserve(request_id: str) -> str:
    """ledger: `withdrawal`, available to @payouts."""
    return f"payout:{request_id}:reserve"


@_effect
def payout_send(request_id: str) -> str:
    """relayer: the transfer of a payout, the only one that it ever asks for."""
    return f"payout:{request_id}:send"


@_effect
def payout_return(request_id: str) -> str:
    """ledger: `withdrawal_cancel`, as the payout certainly had no effect and never will."""
    return f"payout:{request_id}:return"


@_effect
def payout_paid(request_id: str) -> str:
    """ledger: `payout_paid`, once the walk has come to the block of its transfer."""
    return f"payout:{request_id}:paid"


@_effect
def deposit(tx_hash: str) -> str:
    """ledger: `deposit` of the ETH that a transaction brought to custody, whoever asks for it."""
    return f"deposit:{tx_hash}"


@_effect
def reward_claim(request_id: str) -> str:
    """rewards: a reward claim."""
    return f"reward-claim:{request_id}"


@_effect
def reward_book(reward_event: str) -> str:
    """ledger: `reward_compound` or `reward_loss`, once for each `claim` and `settle` event of the index."""
    return f"{reward_event}:book"


@_effect
def reward_cut(reward_event: str, request_id: str) -> str:
    """ledger: `unstake_cancel`, the part of a loss that a queued unstake bears."""
    return f"{reward_event}:cut:{request_id}"


@_effect
def reward_covered(reward_event: str) -> str:
    """ledger, rewards: `reward_loss_covered` and exiting given back, the part of a loss that the company bears."""
    return f"{reward_event}:covered"


@_effect
def rebase(block_number: int, log_index: int) -> str:
    """rewards: the accrual of a rebase."""
    return f"rebase:{block_number}:{log_index}"


@_effect
def rebase_book(block_number: int, log_index: int) -> str:
    """ledger: `reward_accrue` or `reward_drop`."""
    return f"{rebase(block_number, log_index)}:book"


@_effect
def rebase_fee(block_number: int, log_index: int) -> str:
    """ledger: `fee`."""
    return f"{rebase(block_number, log_index)}:fee"


@_effect
def donation(block_number: int, log_index: int) -> str:
    """ledger: `donation`, stETH that another sender gave to the operator."""
    return f"donation:{block_number}:{log_index}"


@_effect
def withdrawal_paid(withdrawal_id: int) -> str:
    """ledger: `unstake_settle`, what a withdrawal paid."""
    return f"settle:{withdrawal_id}:paid"


@_effect
def withdrawal_shortfall(withdrawal_id: int) -> str:
    """ledger: `unstake_shortfall`, what it paid less than was asked for."""
    return f"settle:{withdrawal_id}:shortfall"


@_effect
def gas(signer: str, nonce: int) -> str:
    """ledger: `gas_spent` of a transaction of the relayer."""
    return f"gas:{signer}:{nonce}"


@_effect
def gas_by_hand(tx_hash: str) -> str:
    """ledger: `gas_spent` of a transaction that was sent by hand, as ops told it."""
    return f"gas:by-hand:{tx_hash}"


@_effect
def dust(pool_id: str, block_number: int) -> str:
    """ledger: `rounding_loss` or `rounding_gain` of the operator's stETH."""
    return f"dust:{pool_id}:{block_number}"


@_effect
def manual_submit(block_number: int, log_index: int) -> str:
    """ledger: `manual_submit`, the company staked its own ETH by hand."""
    return f"manual:{block_number}:{log_index}:submit"


@_effect
def manual_lost(block_number: int, log_index: int) -> str:
    """ledger: `fees_lost` or `steth_lost`, stETH that left the operator."""
    return f"manual:{block_number}:{log_index}:lost"


@_effect
def company_claim(withdrawal_id: int) -> str:
    """ledger: `manual_claim` or `company_claim`, a withdrawal that paid the company."""
    return f"claim:{withdrawal_id}:company"


@_effect
def company_shortfall(withdrawal_id: int) -> str:
    """ledger: `fees_lost`, what a withdrawal of the company paid less than was asked for."""
    return f"claim:{withdrawal_id}:shortfall"


@_effect
def claim_lost(withdrawal_id: int) -> str:
    """ledger: `eth_lost`, or `fees_lost` or `steth_lost` of the company's: a claim that paid another address."""
    return f"claim:{withdrawal_id}:lost"


@_effect
def resolution_difference(resolution_id: str) -> str:
    """ledger: `fees_lost`, `steth_lost` or `steth_found`, a difference that ops accepted."""
    return f"resolution:{resolution_id}:difference"


@_effect
def resolution_effect(resolution_id: str) -> str:
    """ledger, rewards: a booking whose own name stands for something else."""
    return f"resolution:{resolution_id}:effect"


@_effect
def resolution_transaction(resolution_id: str, purpose: str) -> str:
    """pool: the transaction that ops named as a parked batch's; no service takes it."""
    return f"resolution:{resolution_id}:{purpose}"


@_effect
def batch_transaction(batch_kind: str, batch_id: str, purpose: str, try_number: int) -> str:
    """relayer: a transaction of a batch: fund, submit, approve, request or claim. The try grows only when the last one is
    certainly without effect."""
    return f"{batch_kind}-batch:{batch_id}:{purpose}:{try_number}"


@_effect
def reconciliation(pool_id: str, block_number: int, run_id: str) -> str:
    """protocols: a reconciliation run; a reading, so each is a new one."""
    return f"reconciliation:{pool_id}:{block_number}:{run_id}"
