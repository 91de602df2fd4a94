"""What may be signed, and nothing else: pure rules over a message, without database or chain.

A key that can sign anything is worth everything it holds. This one can stake, request withdrawals, claim them to
custody, move ETH between custody and operator, and pay out when told that it is a payout.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from eth_abi.abi import decode, encode
from eth_utils.abi import function_signature_to_4byte_selector
from eth_utils.address import is_address

from apps.ethereum.addresses import checksummed
from apps.ethereum.constants import MAX_GAS, TRANSFER_GAS
from apps.ethereum.payees import not_a_payee

PAYOUT = "payout"

SUBMIT = function_signature_to_4byte_selector("submit(address)")
APPROVE = function_signature_to_4byte_selector("approve(address,uint256)")
REQUEST = function_signature_to_4byte_selector("requestWithdrawals(uint256[],address)")
CLAIM = function_signature_to_4byte_selector("claimWithdrawalsTo(uint256[],uint256[],address)")


@dataclass(frozen=True)
class Rules:
    """The company's addresses as the settings hold them (None or a placeholder: not configured), and the caps in wei.

    `keys`: the addresses, checksummed, whose keys are held. What is sent to one that is neither custody nor operator
    could never be sent on. `max_payout_*`: what may leave the house, a bound of its own, since a payout is the one thing
    that a stolen key of the pool could turn into money (None: bounded by the value alone).
    """

    custody: str | None
    operator: str | None
    steth: str | None
    queue: str | None
    max_value_per_tx_wei: int
    max_value_per_day_wei: int | None = None
    keys: frozenset[str] = frozenset()
    max_payout_per_tx_wei: int | None = None
    max_payout_per_day_wei: int | None = None


@dataclass(frozen=True)
class Proposal:
    """What a message asks to be signed; addresses checksummed."""

    sender: str
    to: str
    data: bytes
    value_wei: int
    gas_limit: int | None  # None: not named
    purpose: str | None


@dataclass(frozen=True)
class Refusal:
    code: str
    detail: str


class _Refused(Exception):
    def __init__(self, code: str, detail: str) -> None:
        self.refusal = Refusal(code, detail)
        super().__init__(code)


def judge(rules: Rules, proposal: Proposal, protocol: Mapping[str, str] | None = None) -> Refusal | None:
    """Return why `proposal` may not be signed, or None when it may.

    `protocol`: further contracts of the protocol, by checksummed address, which no payout may go to.
    """
    try:
        _judge(rules, proposal, protocol or {})
    except _Refused as refused:
        return refused.refusal
    return None


def is_internal(rules: Rules, proposal: Proposal) -> bool:
    """Whether this moves ETH between custody and operator: it stays the company's, so it counts for no day's value."""
    ours = {_known(rules.custody), _known(rules.operator)} - {None}
    return not proposal.data and proposal.sender in ours and proposal.to in ours


def is_payout(rules: Rules, proposal: Proposal) -> bool:
    """Whether this sends ETH out of the house, to be nobody's here any more."""
    return not proposal.data and not is_internal(rules, proposal)


def least_gas(data: bytes) -> int:
    """The gas that a call with this calldata costs at least: the floor of EIP-7623, 10 gas for each token, a non-zero byte
    being four tokens.

    The intrinsic 4 gas for each token are always less. No contract is ever created here.
    """
    zeros = data.count(0)
    return TRANSFER_GAS + 10 * (zeros + 4 * (len(data) - zeros))


def with_margin(estimate: int) -> int:
    """An estimate and a quarter: the state may have moved on when the transaction runs. Never above EIP-7825."""
    return min(MAX_GAS, estimate + estimate // 4)


def _judge(rules: Rules, proposal: Proposal, protocol: Mapping[str, str]) -> None:
    if proposal.value_wei > rules.max_value_per_tx_wei:
        raise _Refused("value_over_cap", f"The value is above MAX_VALUE_PER_TX_WEI, {rules.max_value_per_tx_wei}.")
    day = rules.max_value_per_day_wei
    if day is not None and proposal.value_wei > day and not is_internal(rules, proposal):
        raise _Refused("value_over_cap", f"The value is above MAX_VALUE_PER_DAY_WEI, {day}: no day would bear it.")
    if proposal.gas_limit is not None and proposal.gas_limit < least_gas(proposal.data):
        raise _Refused("gas_limit_too_low", f"This calldata alone costs {least_gas(proposal.data)} gas.")
    if not proposal.data:
        _judge_transfer(rules, proposal, protocol)
    elif proposal.to == _known(rules.steth):
        _judge_call(rules, proposal, {SUBMIT: _submit, APPROVE: _approve})
    elif proposal.to == _known(rules.queue):
        _judge_call(rules, proposal, {REQUEST: _request, CLAIM: _claim})
    else:
        _address("LIDO_STETH_ADDRESS", rules.steth)
        _address("LIDO_WITHDRAWAL_QUEUE_ADDRESS", rules.queue)
        raise _Refused("destination_not_allowed", f"Nothing is called at {proposal.to}.")


def _judge_transfer(rules: Rules, proposal: Proposal, protocol: Mapping[str, str]) -> None:
    custody = _address("CUSTODY_ETH_ADDRESS", rules.custody)
    operator = _address("RELAYER_OPERATOR_ADDRESS", rules.operator)
    if proposal.sender not in {custody, operator}:
        raise _Refused("wrong_signer", "Plain transfers are sent by custody or operator only.")
    if proposal.purpose == PAYOUT:
        whose = _no_payee(rules, proposal.to, protocol)
        if whose is not None:
            raise _Refused("payout_target_refused", f"{proposal.to} is {whose}: no user can be paid there.")
        for name, cap in (
            ("MAX_PAYOUT_PER_TX_WEI", rules.max_payout_per_tx_wei),
            ("MAX_PAYOUT_PER_DAY_WEI", rules.max_payout_per_day_wei),
        ):
            if cap is not None and proposal.value_wei > cap:
                raise _Refused("value_over_cap", f"The payout is above {name}, {cap}.")
        return
    if proposal.to in {custody, operator}:
        return
    raise _Refused("destination_not_allowed", f"{proposal.to} is not of the house, and purpose is not payout.")


def _no_payee(rules: Rules, to: str, protocol: Mapping[str, str]) -> str | None:
    """What an address is that no payout may go to. Whether any other contract takes ETH is found by the simulation."""
    ours = {
        _known(rules.custody): "custody itself",
        _known(rules.operator): "the operator itself",
        _known(rules.steth): "the stETH contract",
        _known(rules.queue): "the withdrawal queue",
    }
    return not_a_payee(to) or ours.get(to) or ("a key of the relayer" if to in rules.keys else protocol.get(to))


def _judge_call(rules: Rules, proposal: Proposal, allowed: dict[bytes, Callable[[Rules, Proposal], None]]) -> None:
    operator = _address("RELAYER_OPERATOR_ADDRESS", rules.operator)
    if proposal.sender != operator:
        raise _Refused("wrong_signer", "Lido is called by the operator only: it holds the stETH and the NFTs.")
    check = allowed.get(proposal.data[:4])
    if check is None:
        raise _Refused("call_not_allowed", f"Function 0x{proposal.data[:4].hex()} of {proposal.to} is not allowed.")
    check(rules, proposal)
    if proposal.value_wei and proposal.data[:4] != SUBMIT:
        raise _Refused("call_not_allowed", "This call takes no ETH.")


def _submit(_rules: Rules, proposal: Proposal) -> None:
    _arguments(proposal.data, "address")


def _approve(rules: Rules, proposal: Proposal) -> None:
    spender, _amount = _arguments(proposal.data, "address", "uint256")
    if checksummed(str(spender)) != _address("LIDO_WITHDRAWAL_QUEUE_ADDRESS", rules.queue):
        raise _Refused("spender_not_queue", "Only the withdrawal queue may be approved.")


def _request(rules: Rules, proposal: Proposal) -> None:
    _amounts, owner = _arguments(proposal.data, "uint256[]", "address")
    if checksummed(str(owner)) != _address("RELAYER_OPERATOR_ADDRESS", rules.operator):
        raise _Refused("owner_not_operator", "Withdrawal NFTs belong to the operator only; name it as the owner.")


def _claim(rules: Rules, proposal: Proposal) -> None:
    _ids, _hints, recipient = _arguments(proposal.data, "uint256[]", "uint256[]", "address")
    if checksummed(str(recipient)) != _address("CUSTODY_ETH_ADDRESS", rules.custody):
        raise _Refused("recipient_not_custody", "Claims pay custody only.")


def _arguments(data: bytes, *types: str) -> tuple[object, ...]:
    """Decode strictly: what does not encode back to the same bytes carries something that this policy does not judge."""
    try:
        values = decode(types, data[4:])
        canonical = encode(types, values) == data[4:]
    except Exception:  # noqa: BLE001  # any decoding fault is one answer
        canonical = False
    if not canonical:
        raise _Refused("malformed_calldata", f"The arguments are not a plain encoding of ({', '.join(types)}).")
    return tuple(values)


def _address(name: str, value: str | None) -> str:
    known = _known(value)
    if known is None:
        raise _Refused("not_configured", f"{name} holds no usable address.")
    return known


@lru_cache(maxsize=64)  # a checksum is a hash, and these few addresses are needed for every message
def _known(value: str | None) -> str | None:
    if not value or not is_address(value) or int(value, 16) == 0:
        return None
    return checksummed(value)
