"""Payouts and deposits in a user's statement, and their way to the chain and back."""

from eth_typing import HexStr

from apps.clients.shapes.payouts import NewDeposit
from apps.clients.shapes.reports import TransactionRequestsQuery
from apps.common.wei import ETHER
from apps.pool.reads import PoolReads
from apps.pool.reports.lineage import lineage, requests_of_transaction
from tests.support.flows import Flows
from tests.support.payouts import pay_out, payee
from tests.support.reports import check_statement


def test_payout__paid__statement_and_lineage_name_its_transfer_and_the_way_back_adds_up(
    flows: Flows, user: str
) -> None:
    made = pay_out(flows, user, 2 * ETHER, payee(user))
    flows.settle()
    found = lineage(flows.context, PoolReads(flows.context), made["id"])
    (transfer,) = found.transactions
    assert [item.kind for item in found.movements] == ["withdrawal", "payout_paid"]
    assert (transfer.purpose, transfer.success, found.batches) == ("payout", True, [])
    sent = flows.desk.web3.eth.get_transaction(HexStr(str(transfer.tx_hash)))
    assert (sent["value"], sent["blockNumber"]) == (2 * ETHER, transfer.block_number)
    back = requests_of_transaction(flows.context, str(transfer.tx_hash), TransactionRequestsQuery())
    assert back.value_wei == back.requests_wei == sum(item.amount_wei for item in back.items) == 2 * ETHER
    line = check_statement(flows.context, user).movements[-1]
    assert (line.kind, line.request_id) == ("withdrawal", made["id"])
    assert (line.tx_hash, line.block_number) == (transfer.tx_hash, transfer.block_number)


def test_deposit__by_its_transaction__statement_and_lineage_name_it(flows: Flows, user: str) -> None:
    tx_hash = flows.desk.oracle.fund(flows.desk.operator, ETHER)
    made, _ = flows.service.deposits.create(f"deposit-of:{user}", NewDeposit(user_id=user, tx_hash=tx_hash))
    flows.settle()
    found = lineage(flows.context, PoolReads(flows.context), made.id)
    assert [(item.kind, item.amount_wei) for item in found.movements] == [("deposit", ETHER)]
    assert [(one.purpose, one.tx_hash) for one in found.transactions] == [("deposit", tx_hash)]
    back = requests_of_transaction(flows.context, tx_hash, TransactionRequestsQuery())
    assert (back.value_wei, back.requests_wei, back.items[0].user_id) == (ETHER, ETHER, user)
    line = check_statement(flows.context, user).movements[-1]
    assert (line.kind, line.request_id, line.tx_hash) == ("deposit", made.id, tx_hash)
