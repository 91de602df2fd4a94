"""Where a payout may go and how much: refused by name, before and after it was asked for."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from web3 import Web3

from apps.clients.shapes.payouts import NewPayout, PayoutAddressesQuery
from apps.common.errors import ServiceError
from apps.common.wei import ETHER
from tests.support.flows import Flows
from tests.support.payouts import allow, pay_out, payee, refused, sql

DELEGATED = Web3.to_checksum_address("0x" + "0d" * 20)
CONTRACT = "0x" + "0c" * 20


# ---- where it may go ----


@pytest.mark.parametrize("name", ["custody", "steth", "queue", "locator", "zero", "precompile", "burn", "contract"])
def test_address__that_no_user_can_be_paid_at__refused_by_name(flows: Flows, user: str, name: str) -> None:
    desk = flows.desk
    desk.rpc("anvil_setCode", CONTRACT, "0x00")
    addresses = {
        "custody": desk.operator,
        "steth": desk.deployment.steth,
        "queue": desk.deployment.withdrawal_queue,
        "locator": desk.lido.getLidoLocator().call(),
        "zero": "0x" + "00" * 20,
        "precompile": "0x" + "00" * 19 + "01",
        "burn": "0x000000000000000000000000000000000000dEaD",
        "contract": CONTRACT,
    }
    assert refused(lambda: allow(flows, user, addresses[name])) == (422, "payout_target_refused")


def test_address__of_a_delegated_account__can_be_paid_with_gas_for_its_code(flows: Flows, user: str) -> None:
    flows.desk.rpc("anvil_setCode", DELEGATED, "0xef0100" + "0e" * 20)
    account = flows.context.protocols.account(DELEGATED)
    assert (account.kind, account.delegate, account.refused) == (
        "delegated",
        Web3.to_checksum_address("0x" + "0e" * 20),
        None,
    )
    allow(flows, user, DELEGATED)
    made = pay_out(flows, user, ETHER, DELEGATED)
    flows.requests()
    assert sql(flows, "SELECT gas_limit FROM payout_transactions WHERE request_id = :id", id=made["id"]) == [(100_000,)]
    flows.settle()


def test_payout__address_not_on_the_list_or_too_new__refused(flows: Flows, user: str) -> None:
    elsewhere = payee("elsewhere")
    assert refused(lambda: pay_out(flows, user, ETHER, elsewhere)) == (409, "address_not_allowed")
    allowed = allow(flows, user, elsewhere)
    assert refused(lambda: allow(flows, user, elsewhere)) == (409, "address_allowed_already")
    sql(flows, "ALTER TABLE payout_addresses DISABLE TRIGGER fixed")
    try:
        sql(flows, "UPDATE payout_addresses SET usable_at = now() + interval '1 h' WHERE id = :id", id=allowed)
    finally:
        sql(flows, "ALTER TABLE payout_addresses ENABLE ALWAYS TRIGGER fixed")
    assert refused(lambda: pay_out(flows, user, ETHER, elsewhere)) == (409, "address_not_usable_yet")
    flows.service.payout_addresses.remove(user, allowed)
    assert refused(lambda: pay_out(flows, user, ETHER, elsewhere)) == (409, "address_not_allowed")


def test_payout__address_removed_before_it_is_sent__given_back_and_nothing_is_sent(flows: Flows, user: str) -> None:
    made = pay_out(flows, user, 2 * ETHER, payee(user))
    (listed,) = flows.service.payout_addresses.page(user, PayoutAddressesQuery()).items
    flows.service.payout_addresses.remove(user, listed.id)
    flows.settle()
    done = flows.request(made)
    assert (done["status"], done["reason"]["code"], done["transactions"]) == ("failed", "address_not_allowed", [])
    assert flows.balance(user)["available_wei"] == str(30 * ETHER)
    assert flows.context.relayer.transaction(f"payout:{made['id']}:send") is None


def test_payout__address_that_became_a_contract__given_back(flows: Flows, user: str) -> None:
    made = pay_out(flows, user, ETHER, payee(user))
    flows.desk.rpc("anvil_setCode", payee(user), "0x00")
    flows.settle()
    done = flows.request(made)
    assert (done["status"], done["reason"]["code"]) == ("failed", "payout_target_refused")
    assert flows.balance(user)["available_wei"] == str(30 * ETHER)


# ---- limits ----


def test_payouts__fifty_at_once_past_the_days_limit__as_many_as_fit_and_no_more(flows: Flows, user: str) -> None:
    def one(number: int) -> str:
        body = NewPayout(user_id=user, amount_wei=3 * ETHER, to=payee(user))
        try:
            flows.service.payouts.create(f"race:{user}:{number}", body)
        except ServiceError as error:
            return error.code
        return "made"

    with ThreadPoolExecutor(12) as callers:
        answers = list(callers.map(one, range(50)))
    assert answers.count("made") == 6, "20 ETH a day hold six of three"
    assert set(answers) == {"made", "payout_user_limit"}
    flows.settle()
    assert flows.balance(user)["available_wei"] == str(12 * ETHER)
    assert flows.desk.balance(payee(user)) == 18 * ETHER
    assert refused(lambda: pay_out(flows, user, 3 * ETHER, payee(user))) == (409, "payout_user_limit")
    pay_out(flows, user, 2 * ETHER, payee(user))  # what is left
    flows.settle()


def test_payouts__what_was_given_back__counts_against_no_limit(flows: Flows, user: str) -> None:
    for _ in range(3):
        made = pay_out(flows, user, 20 * ETHER, payee(user))
        assert flows.service.cancel(made["id"]).status == "cancelled"
    assert flows.balance(user)["available_wei"] == str(30 * ETHER)


def test_payouts__of_all_users_past_the_houses_limit__refused(flows: Flows, user: str) -> None:
    spent = sql(flows, "SELECT coalesce(sum(p.amount_wei), 0) FROM payouts p JOIN requests r ON r.id = p.request_id"
                       " WHERE r.status NOT IN ('failed', 'cancelled', 'rejected')")  # fmt: skip
    left = 100 * ETHER - int(spent[0][0])
    others: list[dict[str, Any]] = []
    while left >= 15 * ETHER:
        other = f"{user}-{len(others)}"
        flows.deposit(other, 15 * ETHER)
        allow(flows, other, payee(other))
        others.append(pay_out(flows, other, 15 * ETHER, payee(other)))
        left -= 15 * ETHER
    assert refused(lambda: pay_out(flows, user, left + 1, payee(user))) == (409, "payout_house_limit")
    for made in others:
        flows.service.cancel(made["id"])
