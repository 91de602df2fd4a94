"""Calls that are refused, a problem each, for the examples of problems."""

from collections.abc import Mapping, Sequence

from apps.common.auth import HEADER
from tests.support.endpoints.call import Call
from tests.support.endpoints.world import ANN, LIFE_DEPOSIT

Refused = tuple[str, Call, dict[str, str]]

_MUCH = "9000000000000000000000"
_NOBODY = "01997c5a-8f00-7000-8000-0000000000ff"
_NO_KEY = {HEADER: "another"}


def _movement(**fields: str) -> Call:
    made = {"message_id": "withdrawal:1", "kind": "withdrawal", "user_id": ANN, "amount_wei": _MUCH}
    return Call(body={**made, **fields})


REFUSED: Mapping[str, Sequence[Refused]] = {
    "ledger": [
        ("get_totals", Call(), _NO_KEY),
        ("create_movement", _movement(), {}),
        ("create_movement", _movement(message_id=LIFE_DEPOSIT), {}),
        ("create_movement", _movement(message_id="withdrawal:2", amount_wei="1.5", user="ann"), {}),
        ("create_movement", _movement(message_id="reversal:1", kind="reversal", reference="none"), {}),
        ("get_movement", Call(path={"message_id": "none"}), {}),
    ],
    "rewards": [
        ("list_positions", Call(), _NO_KEY),
        ("create_claim", Call(body={"message_id": "claim:1", "pool_id": "eth_native"}), {}),
        (
            "release_parked",
            Call(body={"message_id": "release:1", "pool_id": "eth_native", "amount_wei": _MUCH}),
            {},
        ),
    ],
    "protocols": [
        ("get_lido_state", Call(), _NO_KEY),
        ("build_submit", Call(body={"amount_wei": "32"}, query={"lmit": "1"}), {}),
        ("build_submit", Call(body={"amount_wei": "100000000000000000000000"}), {}),
        ("build_claim", Call(body={"withdrawal_ids": [999]}), {}),
        ("get_lido_receipt", Call(path={"tx_hash": "0x" + "00" * 32}), {}),
    ],
    "relayer": [
        ("list_signers", Call(), _NO_KEY),
        ("get_transaction", Call(path={"message_id": "none"}), {}),
        ("create_transaction", Call(body={"message_id": "m:1", "to": "0x00", "data": "0x", "value_wei": "1"}), {}),
    ],
    "pool": [
        ("list_requests", Call(), _NO_KEY),
        ("create_stake", Call(body={"message_id": "stake:much", "user_id": ANN, "amount_wei": _MUCH}), {}),
        ("create_stake", Call(body={"message_id": "stake:wrong", "user_id": "@ann", "amount_wei": "0"}), {}),
        ("get_request", Call(path={"request_id": _NOBODY}), {}),
    ],
}
