"""Unsigned transactions, refused before the chain would, with the switch named."""

from collections.abc import Sequence
from typing import Any

from web3 import Web3

from apps.common.errors import Conflict, InvalidInput
from apps.protocols import errors
from apps.protocols.chain import Call, CallReverted, Chain
from apps.protocols.splitting import MAX_ELEMENT_WEI, MAX_ELEMENTS, split
from apps.protocols.withdrawals import read_statuses

ZERO_ADDRESS = "0x" + "00" * 20
MAX_GAS = 16_777_216  # EIP-7825
GAS_MARGIN_PERCENT = 25
# What the chain says when a switch was thrown, or somebody else was quicker, between our look and the estimate: the
# same refusals by the same names.
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


def build_submit(chain: Chain, amount_wei: int) -> dict[str, Any]:
    """One ``submit`` of the whole amount, within the present stake limit and the operator's ETH."""
    state = chain.state(None)
    switches, limit = state["switches"], state["stake_limit"]["current_wei"]
    if switches["stopped"]:
        raise errors.ProtocolStopped
    if switches["staking_paused"]:
        raise errors.StakingPaused
    if limit is not None and amount_wei > int(limit):
        raise errors.StakeLimitExceeded(f"The protocol takes {limit} wei right now, not {amount_wei}.")
    missing = amount_wei - int(state["operator"]["eth_wei"])
    if missing > 0:
        raise errors.OperatorUnderfunded(
            f"The operator's address lacks {missing} wei.", errors={"missing_wei": [str(missing)]}
        )
    data = chain.steth.encode_abi("submit", args=[ZERO_ADDRESS])
    return _unsigned(chain, chain.steth.address, data, amount_wei, f"submit {amount_wei} wei to Lido", [])


def build_approve(chain: Chain, amount_wei: int) -> dict[str, Any]:
    """Let the withdrawal queue take stETH of the operator."""
    data = chain.steth.encode_abi("approve", args=[chain.queue.address, amount_wei])
    return _unsigned(chain, chain.steth.address, data, 0, "approve the withdrawal queue", [])


def build_request(chain: Chain, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One ``requestWithdrawals`` for all items, split at 1000 stETH, owned by the operator."""
    elements: list[dict[str, str]] = []
    # Counted before it is split: a body may ask for more elements than memory holds.
    count = sum(-(-int(item["amount_wei"]) // MAX_ELEMENT_WEI) for item in items)
    if count > MAX_ELEMENTS:
        raise errors.TooManyElements(f"These make {count} elements; at most {MAX_ELEMENTS} go into one transaction.")
    for number, item in enumerate(items):
        try:
            parts = split(item["amount_wei"])
        except ValueError as error:
            raise InvalidInput(errors={f"items.{number}.amount_wei": [str(error)]}) from error
        elements += [{"reference": item["reference"], "amount_wei": str(part)} for part in parts]
    state = chain.state(None)
    if state["switches"]["stopped"]:
        raise errors.ProtocolStopped
    if state["switches"]["queue_paused"]:
        raise errors.QueuePaused
    amounts = [int(element["amount_wei"]) for element in elements]
    missing = sum(amounts) - int(state["operator"]["steth_wei"])
    if missing > 0:
        raise errors.StethInsufficient(
            f"The operator's stETH is {missing} wei short.", errors={"missing_wei": [str(missing)]}
        )
    if int(state["operator"]["allowance_wei"]) < sum(amounts):
        raise errors.AllowanceInsufficient
    data = chain.queue.encode_abi("requestWithdrawals", args=[amounts, chain.operator])
    summary = f"request {len(elements)} withdrawals, {sum(amounts)} wei of stETH"
    return _unsigned(chain, chain.queue.address, data, 0, summary, elements)


def build_claim(chain: Chain, withdrawal_ids: Sequence[int]) -> dict[str, Any]:
    """One claim of all ids to custody, sorted, hints found; each id is looked at first."""
    ids = sorted(set(withdrawal_ids))
    if len(ids) > MAX_ELEMENTS:
        raise errors.TooManyElements(f"At most {MAX_ELEMENTS} withdrawals go into one claim.")
    statuses = read_statuses(chain, ids, chain.block())
    _refuse(errors.WithdrawalClaimed, [item for item in statuses if item["claimed"]])
    _refuse(errors.WithdrawalNotOwned, [item for item in statuses if item["owner"] != chain.operator])
    _refuse(errors.WithdrawalNotFinalized, [item for item in statuses if not item["finalized"]])
    hints = [item["hint"] for item in statuses]
    data = chain.queue.encode_abi("claimWithdrawalsTo", args=[ids, hints, chain.custody])
    return _unsigned(chain, chain.queue.address, data, 0, f"claim {len(ids)} withdrawals to custody", [])


def _refuse(error: type[Conflict], items: Sequence[dict[str, Any]]) -> None:
    if items:
        raise error(errors={"withdrawal_ids": [str(item["withdrawal_id"]) for item in items]})


def _unsigned(
    chain: Chain, to: str, data: str, value_wei: int, summary: str, elements: list[dict[str, str]]
) -> dict[str, Any]:
    """The transaction with a gas limit of the node's estimate and a margin; what would revert is refused here."""
    request = {"from": chain.operator, "to": to, "data": data, "value": hex(value_wei)}
    try:
        estimate = int(chain.batch([Call("eth_estimateGas", [request])])[0], 16)
    except CallReverted as revert:
        named = NAMED_REVERTS.get(str(revert))
        if named is not None:
            raise named(f"The chain says {revert}.") from revert
        raise errors.WouldRevert(f"The transaction would revert: {revert}") from revert
    return {
        "from": chain.operator,
        "to": Web3.to_checksum_address(to),
        "data": data,
        "value_wei": str(value_wei),
        "gas_limit": min(MAX_GAS, estimate * (100 + GAS_MARGIN_PERCENT) // 100 + 10_000),
        "summary": summary,
        "elements": elements,
    }
