"""Unsigned transactions. What the chain would refuse is refused here, with the name of the switch that is off."""

from collections.abc import Sequence

from apps.clients.shapes.protocols import Element, UnsignedTransaction, WithdrawalItem
from apps.common.errors import Conflict, InvalidInput
from apps.ethereum.constants import MAX_ELEMENTS, MAX_GAS, MAX_WITHDRAWAL_WEI, ZERO_ADDRESS
from apps.ethereum.contracts import Contract
from apps.ethereum.logs import integer
from apps.ethereum.splitting import split
from apps.protocols import errors
from apps.protocols.calls import Call, CallReverted
from apps.protocols.chain import Chain
from apps.protocols.state import read_state
from apps.protocols.withdrawals import Withdrawal, read_statuses

GAS_MARGIN_PERCENT = 25
# What the chain says when a switch was thrown, or another sender was quicker, between the look at the state and the
# estimate: the same refusals by the same names.
NAMED_REVERTS: dict[str, type[Conflict]] = {
    "STAKING_PAUSED": errors.StakingPaused,
    "STAKE_LIMIT": errors.StakeLimitExceeded,
    "CONTRACT_IS_STOPPED": errors.ProtocolStopped,
    "ResumedExpected": errors.QueuePaused,
    "ALLOWANCE_EXCEEDED": errors.AllowanceInsufficient,
    "RequestAlreadyClaimed": errors.WithdrawalClaimed,
    "RequestNotFoundOrNotFinalized": errors.WithdrawalNotFinalized,
    "NotOwner": errors.WithdrawalNotOwned,
    "CantSendValueRecipientMayHaveReverted": errors.CustodyRefusesEth,
}


class Builders:
    """Builds transactions of the operator against the chain's present state."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain

    def submit(self, amount_wei: int) -> UnsignedTransaction:
        """One ``submit`` of the whole amount, within the present stake limit and the operator's ETH."""
        state = read_state(self.chain)
        limit = state.stake_limit.current_wei
        if state.switches.stopped:
            raise errors.ProtocolStopped
        if state.switches.staking_paused:
            raise errors.StakingPaused
        if limit is not None and amount_wei > limit:
            raise errors.StakeLimitExceeded(f"The protocol takes {limit} wei right now, not {amount_wei}.")
        missing = amount_wei - state.operator.eth_wei
        if missing > 0:
            raise errors.OperatorUnderfunded(
                f"The operator's address lacks {missing} wei.", errors={"missing_wei": [str(missing)]}
            )
        steth = self.chain.steth
        data = steth.encode("submit", ZERO_ADDRESS)
        return self._unsigned(steth, data, f"submit {amount_wei} wei to Lido", value_wei=amount_wei)

    def approve(self, amount_wei: int) -> UnsignedTransaction:
        """Let the withdrawal queue take stETH of the operator."""
        data = self.chain.steth.encode("approve", self.chain.queue.address, amount_wei)
        return self._unsigned(self.chain.steth, data, "approve the withdrawal queue")

    def request_withdrawals(self, items: Sequence[WithdrawalItem]) -> UnsignedTransaction:
        """One ``requestWithdrawals`` for all items, split at 1000 stETH, owned by the operator."""
        elements = _elements(items)
        asked = sum(element.amount_wei for element in elements)
        state = read_state(self.chain)
        if state.switches.stopped:
            raise errors.ProtocolStopped
        if state.switches.queue_paused:
            raise errors.QueuePaused
        missing = asked - state.operator.steth_wei
        if missing > 0:
            raise errors.StethInsufficient(
                f"The operator's stETH is {missing} wei short.", errors={"missing_wei": [str(missing)]}
            )
        if state.operator.allowance_wei < asked:
            raise errors.AllowanceInsufficient
        amounts = [element.amount_wei for element in elements]
        data = self.chain.queue.encode("requestWithdrawals", amounts, self.chain.operator)
        summary = f"request {len(elements)} withdrawals, {asked} wei of stETH"
        return self._unsigned(self.chain.queue, data, summary, elements=elements)

    def claim(self, withdrawal_ids: Sequence[int]) -> UnsignedTransaction:
        """One claim of all ids to custody, sorted, hints found; each id is looked at first."""
        ids = sorted(set(withdrawal_ids))
        if len(ids) > MAX_ELEMENTS:
            raise errors.TooManyElements(f"At most {MAX_ELEMENTS} withdrawals go into one claim.")
        found = read_statuses(self.chain, ids, self.chain.block())
        _refuse(errors.WithdrawalClaimed, [one for one in found if one.status.claimed])
        _refuse(errors.WithdrawalNotOwned, [one for one in found if one.status.owner != self.chain.operator])
        _refuse(errors.WithdrawalNotFinalized, [one for one in found if not one.status.finalized])
        hints = [one.hint for one in found]
        data = self.chain.queue.encode("claimWithdrawalsTo", ids, hints, self.chain.custody)
        return self._unsigned(self.chain.queue, data, f"claim {len(ids)} withdrawals to custody")

    def _unsigned(
        self, to: Contract, data: str, summary: str, *, value_wei: int = 0, elements: Sequence[Element] = ()
    ) -> UnsignedTransaction:
        """The transaction with a gas limit of the node's estimate and a margin; what would revert is refused here."""
        request = {"from": self.chain.operator, "to": to.address, "data": data, "value": hex(value_wei)}
        try:
            estimate = integer(self.chain.batch([Call("eth_estimateGas", [request])])[0])
        except CallReverted as revert:
            named = NAMED_REVERTS.get(str(revert))
            if named is not None:
                raise named(f"The chain says {revert}.") from revert
            raise errors.WouldRevert(f"The transaction would revert: {revert}") from revert
        return UnsignedTransaction(
            sender=self.chain.operator,
            to=to.address,
            data=data,
            value_wei=value_wei,
            gas_limit=min(MAX_GAS, estimate * (100 + GAS_MARGIN_PERCENT) // 100 + 10_000),
            summary=summary,
            elements=list(elements),
        )


def _elements(items: Sequence[WithdrawalItem]) -> list[Element]:
    # Counted before anything is split: a body may ask for more elements than memory holds.
    count = sum(-(-item.amount_wei // MAX_WITHDRAWAL_WEI) for item in items)
    if count > MAX_ELEMENTS:
        raise errors.TooManyElements(f"These make {count} elements; at most {MAX_ELEMENTS} go into one transaction.")
    elements: list[Element] = []
    for number, item in enumerate(items):
        try:
            parts = split(item.amount_wei)
        except ValueError as error:
            raise InvalidInput(errors={f"items.{number}.amount_wei": [str(error)]}) from error
        elements += [Element(reference=item.reference, amount_wei=part) for part in parts]
    return elements


def _refuse(error: type[Conflict], found: Sequence[Withdrawal]) -> None:
    if found:
        raise error(errors={"withdrawal_ids": [str(one.status.withdrawal_id) for one in found]})
