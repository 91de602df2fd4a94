"""The kinds of movements are those of the contract, and the arithmetic of a movement keeps every wei."""

import pytest

from apps.clients.shapes.ledger import MOVEMENT_KINDS
from apps.ledger.errors import BalanceTooLarge, InsufficientBalance
from apps.ledger.kinds import BUCKETS, KINDS, LOSSES, REVERSAL, SYSTEM_ACCOUNTS, bucket_changes
from apps.ledger.posting import Posting, apply_movement
from tests.support import ledger_model


def test_kinds__against_the_contract__are_the_same() -> None:
    assert {name: (kind.source, kind.target) for name, kind in KINDS.items()} == ledger_model.KINDS


def test_kinds__each__move_between_two_known_accounts() -> None:
    known = {*BUCKETS, *SYSTEM_ACCOUNTS, LOSSES}
    for kind in KINDS.values():
        assert kind.source != kind.target
        assert {kind.source, kind.target} <= known
        assert kind.swapped().swapped() == kind
        assert kind.needs_user == (not {kind.source, kind.target} <= {*SYSTEM_ACCOUNTS, LOSSES})


def test_bucket_changes__of_a_kind_and_its_reverse__cancel_out() -> None:
    for kind in KINDS.values():
        there, back = bucket_changes(kind, 7), bucket_changes(kind.swapped(), 7)
        assert {name: there[name] + back[name] for name in there} == dict.fromkeys(there, 0)


def movement(kind: str, wei: int) -> Posting:
    return Posting("m", kind, "p", "alice", wei, None)


def test_apply__within_what_is_there__moves_it() -> None:
    buckets = dict(zip(BUCKETS, (5, 0, 0, 0), strict=True))
    assert apply_movement(buckets, movement("stake_reserve", 5), KINDS["stake_reserve"]) == {
        "available": 0,
        "reserved": 5,
        "staked": 0,
        "unstaking": 0,
    }


def test_apply__beyond_what_is_there__says_how_much_is_missing() -> None:
    buckets = dict(zip(BUCKETS, (5, 0, 0, 0), strict=True))
    with pytest.raises(InsufficientBalance, match="User alice lacks 2 wei in available"):
        apply_movement(buckets, movement("stake_reserve", 7), KINDS["stake_reserve"])


def test_apply__to_two_to_the_256__is_refused() -> None:
    buckets = dict(zip(BUCKETS, (2**256 - 1, 0, 0, 0), strict=True))
    with pytest.raises(BalanceTooLarge):
        apply_movement(buckets, movement("deposit", 1), KINDS["deposit"])


def test_kinds__against_the_names_on_the_wire__are_the_same() -> None:
    assert (*KINDS, REVERSAL) == MOVEMENT_KINDS
