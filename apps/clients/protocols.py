"""Calls to protocols: Lido calldata, chain reads, reconciliation."""

from collections.abc import Sequence

from apps.clients.audits import AUDIT_TIMEOUT_SEC
from apps.clients.base import ServiceClient, segment
from apps.clients.shapes.history import Apr, History
from apps.clients.shapes.payouts import Account, Transfer, UnidentifiedDeposits
from apps.clients.shapes.protocols import (
    BuildAmount,
    BuildClaim,
    BuildWithdrawals,
    LidoBlock,
    LidoReceipt,
    LidoState,
    UnsignedTransaction,
    WithdrawalIds,
    WithdrawalItem,
    WithdrawalStatus,
    WithdrawalStatuses,
)
from apps.clients.shapes.reconciliation import NewReconciliation, Reconciliation, ReconciliationPage, RewardSums
from apps.common.shapes import dump

RECONCILIATION_TIMEOUT_SEC = AUDIT_TIMEOUT_SEC + 20.0  # the ledger is audited within it


class ProtocolsClient(ServiceClient):
    service = "protocols"

    def build_submit(self, amount_wei: int) -> UnsignedTransaction:
        return self._build("submit", BuildAmount(amount_wei))

    def build_approve(self, amount_wei: int) -> UnsignedTransaction:
        return self._build("approve", BuildAmount(amount_wei))

    def build_request_withdrawals(self, items: Sequence[WithdrawalItem]) -> UnsignedTransaction:
        return self._build("request-withdrawals", BuildWithdrawals(list(items)))

    def build_claim(self, withdrawal_ids: Sequence[int]) -> UnsignedTransaction:
        return self._build("claim", BuildClaim(list(withdrawal_ids)))

    def state(self, block: int | None = None) -> LidoState:
        return self.read(LidoState, "/v1/lido/state", block=block)

    def block(self, number: int) -> LidoBlock:
        return self.read(LidoBlock, f"/v1/lido/blocks/{number}")

    def apr(self) -> Apr:
        return self.read(Apr, "/v1/lido/apr")

    def history(self, after: str, limit: int = 200) -> History:
        return self.read(History, "/v1/lido/history", after=after, limit=limit)

    def receipt(self, tx_hash: str) -> LidoReceipt | None:
        return self.find(LidoReceipt, f"/v1/lido/receipts/{segment(tx_hash)}")

    def account(self, address: str) -> Account:
        """What stands at an address now."""
        return self.read(Account, f"/v1/accounts/{segment(address)}")

    def transfer(self, tx_hash: str) -> Transfer | None:
        """A transaction's own transfer of ETH; None where no node has it in a block."""
        return self.find(Transfer, f"/v1/transfers/{segment(tx_hash)}")

    def unidentified(self, **query: str | int | None) -> UnidentifiedDeposits:
        """What came to custody and no movement of the ledger names."""
        return self.read(UnidentifiedDeposits, "/v1/deposits/unidentified", **query)

    def withdrawal_status(self, ids: Sequence[int]) -> list[WithdrawalStatus]:
        """The status of up to 1,000 withdrawals, ordered by id."""
        return self.write(WithdrawalStatuses, "/v1/lido/withdrawals/status", dump(WithdrawalIds(list(ids)))).items

    def reconcile(self, message_id: str, block: int, owed_wei: int, weight_wei: int) -> Reconciliation:
        """Compare books and chain at a block; the ledger is audited within it."""
        new = NewReconciliation(message_id=message_id, block=block, rewards=RewardSums(owed_wei, weight_wei))
        return self.write(Reconciliation, "/v1/reconciliations", dump(new), timeout=RECONCILIATION_TIMEOUT_SEC)

    def reconciliations(self, **query: str | int | None) -> ReconciliationPage:
        return self.read(ReconciliationPage, "/v1/reconciliations", **query)

    def _build(self, what: str, asked: BuildAmount | BuildWithdrawals | BuildClaim) -> UnsignedTransaction:
        return self.write(UnsignedTransaction, f"/v1/lido/transactions/{what}", dump(asked))
