"""The names of effects, read back."""

from apps.pool import effects
from apps.pool.effects import EFFECTS
from apps.pool.reports.causes import Cause, cause_of

REQUEST = "01997c5a-8f00-7000-8000-000000000025"
HASH = "0x" + "ab" * 32
# Of a request by its first argument, but what follows an event of the index.
OF_REQUEST = [effect for effect in EFFECTS if effect.__code__.co_varnames[:1] == ("request_id",)]


def test_cause__of_every_effect_of_a_request__is_the_request() -> None:
    assert len(OF_REQUEST) > 10
    for effect in OF_REQUEST:
        name = effect(REQUEST, *["1"] * (effect.__code__.co_argcount - 1))
        assert cause_of(name).request_id == REQUEST, name


def test_cause__of_a_withdrawal_a_deposit_and_a_rebase__what_the_name_holds() -> None:
    assert cause_of(effects.withdrawal_paid(7)) == Cause(withdrawal_id=7)
    assert cause_of(effects.deposit(HASH)) == Cause(tx_hash=HASH)
    assert cause_of(effects.reward_book(effects.rebase(9, 4))) == Cause(block_number=9)
    assert cause_of(effects.reward_book(effects.reward_claim(REQUEST))) == Cause(request_id=REQUEST)


def test_cause__of_a_name_that_a_caller_chose__none() -> None:
    for name in ("deposit:42", "stake:42", "settle:x:paid", "payout:", "rebase:1", "anything"):
        assert cause_of(name) == Cause(), name
