"""The shapes that callers rely on, and a check of an answer against one: every key, and what its value looks like.

W wei, S signed wei, N a whole number, each as a decimal string; I an integer; B a boolean; U a UUIDv7; T a time; H hex
bytes; A a checksummed address; text any string. A ``?`` behind it allows null; the key is there all the same.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from web3 import Web3

_PATTERNS = {
    "W": r"0|[1-9][0-9]*",
    "S": r"0|-?[1-9][0-9]*",
    "N": r"-?[0-9]+",
    "U": r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
    "T": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z",
    "H": r"0x([0-9a-f]{2})*",
    "text": r"[\s\S]*",
}
_REASON = {"code": "text", "detail": "text"}
_TRANSACTION = {"message_id": "text", "purpose": "text", "status": "text", "tx_hash": "H?"}

MOVEMENT = {
    "id": "I", "message_id": "text", "kind": "text", "pool_id": "text", "user_id": "text?", "amount_wei": "W",
    "reference": "text?", "created_at": "T",
}  # fmt: skip
BALANCE = {
    "pool_id": "text", "user_id": "text", "available_wei": "W", "reserved_wei": "W", "staked_wei": "W",
    "unstaking_wei": "W", "last_movement_id": "I?", "as_of": "T",
}  # fmt: skip
SYSTEM = ("@custody", "@lido", "@rewards", "@fees", "@gas", "@payouts", "@rounding")
TOTALS = {
    "pool_id": "text", "available_wei": "W", "reserved_wei": "W", "staked_wei": "W", "unstaking_wei": "W",
    "system": dict.fromkeys(SYSTEM, "S"), "sum_wei": "W", "last_movement_id": "I?",
}  # fmt: skip
AUDIT = {
    "id": "U", "ok": "B", "created_at": "T",
    "differences": [{"subject": "text", "field": "text", "expected": "N", "found": "N"}],
}  # fmt: skip
ACCRUAL = {
    "id": "I", "message_id": "text", "pool_id": "text", "source": "text", "new_rewards_wei": "S", "fee_wei": "W",
    "distributed_wei": "S", "parked_wei": "S", "acc_reward_per_share": "N", "weight_wei": "W", "created_at": "T",
}  # fmt: skip
REWARD_POOL = {
    "pool_id": "text", "weight_wei": "W", "acc_reward_per_share": "N", "remainder": "N", "accrued_wei": "S",
    "claimed_wei": "S", "parked_wei": "S", "deficit_wei": "W",
}  # fmt: skip
POSITION = {
    "pool_id": "text", "user_id": "text", "staked_wei": "W", "exiting_wei": "W", "pending_wei": "S", "claimed_wei": "S",
    "reward_debt": "N", "updated_at": "T?",
}  # fmt: skip
CLAIM = {"message_id": "text", "pool_id": "text", "user_id": "text", "claimed_wei": "S", "created_at": "T"}
UNSIGNED_TRANSACTION = {
    "from": "A", "to": "A", "data": "H", "value_wei": "W", "gas_limit": "I", "summary": "text",
    "elements": [{"reference": "text", "amount_wei": "W"}],
}  # fmt: skip
LIDO_STATE = {
    "chain_id": "I", "block_number": "I", "block_hash": "H", "block_time": "T", "total_pooled_ether_wei": "W",
    "total_shares": "N", "share_rate": "N",
    "operator": {"address": "A", "shares": "N", "steth_wei": "W", "eth_wei": "W", "allowance_wei": "W"},
    "custody": {"address": "A", "eth_wei": "W"},
    "stake_limit": {"current_wei": "W?", "max_wei": "W?"},
    "switches": {"staking_paused": "B", "queue_paused": "B", "stopped": "B", "bunker": "B"},
}  # fmt: skip
REBASE = {
    "block_number": "I", "block_hash": "H", "tx_hash": "H", "log_index": "I", "time_elapsed_sec": "I",
    "pre_total_shares": "N", "pre_total_ether_wei": "W", "post_total_shares": "N", "post_total_ether_wei": "W",
    "operator_shares": "N", "reward_wei": "S",
}  # fmt: skip
HISTORY_ITEM = {
    "kind": "text", "block_number": "I", "block_hash": "H", "tx_hash": "H", "log_index": "I", "shares": "N?",
    "amount_wei": "W?",
}  # fmt: skip
RECEIPT = {
    "tx_hash": "H", "block_number": "I", "transaction_index": "I", "success": "B",
    "submitted": [{"log_index": "I", "amount_wei": "W", "shares": "N"}],
    "withdrawal_requests": [{"log_index": "I", "withdrawal_id": "I", "amount_wei": "W", "shares": "N"}],
    "withdrawal_claims": [{"log_index": "I", "withdrawal_id": "I", "receiver": "A", "amount_wei": "W"}],
}  # fmt: skip
WITHDRAWAL_STATUS = {
    "withdrawal_id": "I", "owner": "A", "amount_wei": "W", "requested_at": "T", "finalized": "B", "claimed": "B",
    "claimable_wei": "W",
}  # fmt: skip
RECONCILIATION = {
    "id": "U", "message_id": "text", "block_number": "I?", "block_hash": "H?", "verdict": "text", "reason": (_REASON,),
    "lines": [
        {"name": "text", "expected_wei": "S", "found_wei": "S", "drift_wei": "S", "tolerance_wei": "W", "ok": "B"}
    ],
    "created_at": "T",
}  # fmt: skip
REQUEST = {
    "id": "U", "message_id": "text", "kind": "text", "pool_id": "text", "user_id": "text", "amount_wei": "W?",
    "settled_wei": "S?", "status": "text", "reason": (_REASON,), "batch_id": "U?",
    "withdrawals": [{"withdrawal_id": "I", "amount_wei": "W", "paid_wei": "W?"}],
    "transactions": [_TRANSACTION],
    "next": ({"step": "text", "due_at": "T?"},),
    "timeline": [{"status": "text", "at": "T", "reason": (_REASON,)}],
    "created_at": "T", "updated_at": "T",
}  # fmt: skip
BATCH = {
    "id": "U", "kind": "text", "status": "text", "request_count": "I", "amount_wei": "W",
    "transactions": [_TRANSACTION], "created_at": "T", "updated_at": "T",
}  # fmt: skip
PORTFOLIO = {"pool_id": "text", "user_id": "text", "balance": BALANCE, "position": POSITION, "requests": [REQUEST]}
EVENT = {
    "sequence": "I", "type": "text", "pool_request_id": "U", "user_id": "text", "data": REQUEST, "created_at": "T",
}  # fmt: skip
RELAYER_TRANSACTION = {
    "message_id": "text", "purpose": "text?", "status": "text", "reason": (_REASON,), "from": "A", "to": "A",
    "data": "H", "value_wei": "W", "gas_limit": "I", "deadline": "T?", "nonce": "I?", "tx_hash": "H?",
    "block_number": "I?", "block_hash": "H?", "confirmations": "I", "observed_block": "I?", "gas_cost_wei": "W?",
    "revert": ({"name": "text", "detail": "text"},), "passing": "text?",
    "attempts": [
        {"tx_hash": "H", "kind": "text", "max_fee_per_gas_wei": "W", "max_priority_fee_per_gas_wei": "W", "created_at": "T"}
    ],
    "created_at": "T", "updated_at": "T",
}  # fmt: skip
SIGNER = {"address": "A", "state": "text", "balance_wei": "W", "next_nonce": "I", "latest_nonce": "I", "in_flight": "I"}


def faults(spec: Any, value: Any, where: str = "") -> list[str]:
    """Where `value` is not of the shape: a missing or wrong key, null where none is allowed, another form.

    A list of one spec stands for any number of such items, a tuple of one for it or null. An answer may say more than
    the shape names.
    """
    if isinstance(spec, tuple):
        return [] if value is None else faults(spec[0], value, where)
    if isinstance(spec, list):
        if not isinstance(value, Sequence) or isinstance(value, str):
            return [f"{where} is no list: {value!r}"]
        return [fault for number, item in enumerate(value) for fault in faults(spec[0], item, f"{where}[{number}]")]
    if isinstance(spec, Mapping):
        if not isinstance(value, Mapping):
            return [f"{where} is no object: {value!r}"]
        missing = [f"{where}.{name} is missing" for name in spec if name not in value]
        return missing + [
            fault for name in spec if name in value for fault in faults(spec[name], value[name], f"{where}.{name}")
        ]
    name = str(spec)
    if name.endswith("?"):
        return [] if value is None else faults(name[:-1], value, where)
    return [] if _is(name, value) else [f"{where} is not {name}: {value!r}"]


def _is(name: str, value: Any) -> bool:
    if name == "I":
        return type(value) is int
    if name == "B":
        return type(value) is bool
    if name == "A":
        return isinstance(value, str) and Web3.is_checksum_address(value)
    return isinstance(value, str) and re.fullmatch(_PATTERNS[name], value, re.ASCII) is not None
