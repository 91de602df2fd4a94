"""The policy: what is signed, and that nothing else is."""

import pytest
from eth_abi.abi import encode

from apps.common.wei import ETHER
from relayer.signing.policy import APPROVE, CLAIM, REQUEST, SUBMIT, Proposal, Rules, judge, least_gas

OPERATOR = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
CUSTODY = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
STRANGER = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
STETH = "0xae7ab96520DE3A18E5e111B5EaAb095312D7fE84"
QUEUE = "0x889edC2eDab5f40e902b864aD4d7AdE8E412F9B1"
ZERO = "0x" + "0" * 40
RULES = Rules(CUSTODY, OPERATOR, STETH, QUEUE, 100 * ETHER)

SUBMIT_DATA = SUBMIT + encode(["address"], [ZERO])
APPROVE_DATA = APPROVE + encode(["address", "uint256"], [QUEUE, 2**256 - 1])
REQUEST_DATA = REQUEST + encode(["uint256[]", "address"], [[100, 200], OPERATOR])
CLAIM_DATA = CLAIM + encode(["uint256[]", "uint256[]", "address"], [[1, 2], [1, 1], CUSTODY])


def proposal(
    to: str,
    data: bytes = b"",
    value: int = 0,
    sender: str = OPERATOR,
    purpose: str | None = None,
    gas_limit: int | None = None,
) -> Proposal:
    return Proposal(sender, to, data, value, gas_limit, purpose)


@pytest.mark.parametrize(
    "allowed",
    [
        proposal(STETH, SUBMIT_DATA, ETHER),
        proposal(STETH, APPROVE_DATA),
        proposal(QUEUE, REQUEST_DATA),
        proposal(QUEUE, CLAIM_DATA),
        proposal(CUSTODY, value=5),
        proposal(OPERATOR, value=5, sender=CUSTODY),
        proposal(STRANGER, value=5, purpose="payout"),
        proposal(STRANGER, value=5, sender=CUSTODY, purpose="payout"),
    ],
)
def test_judge__what_the_house_does__allowed(allowed: Proposal) -> None:
    assert judge(RULES, allowed) is None


@pytest.mark.parametrize(
    ("refused", "code"),
    [
        (proposal(STRANGER, value=5), "destination_not_allowed"),
        (proposal(STRANGER, value=5, purpose="submit"), "destination_not_allowed"),
        (proposal(STRANGER, SUBMIT_DATA, 5, purpose="payout"), "destination_not_allowed"),
        (proposal(STETH, value=5), "destination_not_allowed"),
        (proposal(STETH, APPROVE + encode(["address", "uint256"], [STRANGER, 1])), "spender_not_queue"),
        (proposal(STETH, APPROVE_DATA, 1), "call_not_allowed"),
        (
            proposal(STETH, bytes.fromhex("a9059cbb") + encode(["address", "uint256"], [STRANGER, 1])),
            "call_not_allowed",
        ),
        (proposal(STETH, b"\xa1\x90"), "call_not_allowed"),
        (proposal(STETH, SUBMIT), "malformed_calldata"),
        (proposal(STETH, SUBMIT_DATA + b"\0"), "malformed_calldata"),
        (proposal(STETH, APPROVE + b"\1" * 12 + APPROVE_DATA[16:]), "malformed_calldata"),
        (proposal(STETH, SUBMIT_DATA, 5, sender=CUSTODY), "wrong_signer"),
        (proposal(STRANGER, value=5, sender=STRANGER, purpose="payout"), "wrong_signer"),
        (proposal(QUEUE, REQUEST + encode(["uint256[]", "address"], [[1], STRANGER])), "owner_not_operator"),
        (proposal(QUEUE, REQUEST_DATA, 1), "call_not_allowed"),
        (
            proposal(QUEUE, CLAIM + encode(["uint256[]", "uint256[]", "address"], [[1], [1], STRANGER])),
            "recipient_not_custody",
        ),
        (proposal(STETH, SUBMIT_DATA, 100 * ETHER + 1), "value_over_cap"),
        (proposal(STETH, SUBMIT_DATA, ETHER, gas_limit=least_gas(SUBMIT_DATA) - 1), "gas_limit_too_low"),
    ],
)
def test_judge__anything_else__refused_with_a_code(refused: Proposal, code: str) -> None:
    verdict = judge(RULES, refused)
    assert verdict is not None
    assert verdict.code == code


@pytest.mark.parametrize("placeholder", [None, "", "0x", "0x_your_address", ZERO])
def test_judge__address_missing__refused_naming_the_setting(placeholder: str | None) -> None:
    verdict = judge(Rules(CUSTODY, OPERATOR, placeholder, QUEUE, ETHER), proposal(STETH, SUBMIT_DATA))
    assert verdict is not None
    assert verdict.code == "not_configured"
    assert "LIDO_STETH_ADDRESS" in verdict.detail
    verdict = judge(Rules(placeholder, OPERATOR, STETH, QUEUE, ETHER), proposal(CUSTODY, value=1))
    assert verdict is not None
    assert "CUSTODY_ETH_ADDRESS" in verdict.detail


def test_judge__one_address_for_both__transfers_and_claims_allowed() -> None:
    rules = Rules(OPERATOR, OPERATOR, STETH, QUEUE, ETHER)
    claim = CLAIM + encode(["uint256[]", "uint256[]", "address"], [[1], [1], OPERATOR])
    assert judge(rules, proposal(QUEUE, claim)) is None
    assert judge(rules, proposal(OPERATOR, value=1)) is None
