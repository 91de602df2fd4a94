"""Lido's ABI as it is committed, encoded and decoded."""

import pytest

from apps.ethereum.contracts import LIDO, QUEUE, Contract

OWNER = "0x" + "11" * 20


def test_encode__a_call__selector_and_arguments_as_on_mainnet() -> None:
    contract = Contract("0x" + "22" * 20, LIDO)
    assert contract.encode("submit", OWNER) == "0xa1903eab" + "00" * 12 + "11" * 20
    assert contract.encode("getTotalShares") == "0xd5002f2e"


def test_decode__one_value_and_several__bare_and_a_tuple() -> None:
    assert LIDO.functions["sharesOf"].decode(f"0x{7:064x}") == 7
    words = [1, 1, 5, 6, 7, 8, 9]
    found = LIDO.functions["getStakeLimitFullInfo"].decode("0x" + "".join(f"{word:064x}" for word in words))
    assert found == (True, True, 5, 6, 7, 8, 9)


@pytest.mark.parametrize("data", ["0x", "0x00", "0xnothex", f"0x{2:064x}"])
def test_decode__other_data__value_error(data: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        LIDO.functions["isStopped"].decode(data)


def test_event__its_log__topic_and_the_fields_that_are_no_topics() -> None:
    claimed = QUEUE.events["WithdrawalClaimed"]
    assert LIDO.events["Transfer"].topic == "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
    assert claimed.read({"data": f"0x{99:064x}"}) == (99,)
    with pytest.raises(ValueError, match="uint256"):
        claimed.read({"data": "0x"})
