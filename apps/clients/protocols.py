"""Calls to protocols: Lido calldata, chain reads, reconciliation."""

from collections.abc import Mapping, Sequence
from typing import Any

from apps.clients.base import AUDIT_TIMEOUT_SEC, ServiceClient, segment

RECONCILIATION_TIMEOUT_SEC = AUDIT_TIMEOUT_SEC + 20.0  # the ledger is audited within it


class ProtocolsClient(ServiceClient):
    service = "protocols"

    def build_submit(self, amount_wei: int) -> dict[str, Any]:
        return self.post("/v1/lido/transactions/submit", {"amount_wei": str(amount_wei)})

    def build_approve(self, amount_wei: int) -> dict[str, Any]:
        return self.post("/v1/lido/transactions/approve", {"amount_wei": str(amount_wei)})

    def build_request_withdrawals(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return self.post("/v1/lido/transactions/request-withdrawals", {"items": list(items)})

    def build_claim(self, withdrawal_ids: Sequence[int]) -> dict[str, Any]:
        return self.post("/v1/lido/transactions/claim", {"withdrawal_ids": list(withdrawal_ids)})

    def state(self, block: int | None = None) -> dict[str, Any]:
        return self.get("/v1/lido/state", block=block)

    def block(self, number: int) -> dict[str, Any]:
        return self.get(f"/v1/lido/blocks/{number}")

    def history(self, after: str, limit: int = 200) -> dict[str, Any]:
        return self.get("/v1/lido/history", after=after, limit=limit)

    def receipt(self, tx_hash: str) -> dict[str, Any] | None:
        return self.find(f"/v1/lido/receipts/{segment(tx_hash)}")

    def withdrawal_status(self, ids: Sequence[int]) -> list[dict[str, Any]]:
        return list(self.post("/v1/lido/withdrawals/status", {"ids": list(ids)})["items"])

    def reconcile(self, message_id: str, block: int, owed_wei: int, weight_wei: int) -> dict[str, Any]:
        rewards = {"owed_wei": str(owed_wei), "weight_wei": str(weight_wei)}
        body = {"message_id": message_id, "block": block, "rewards": rewards}
        return self.post("/v1/reconciliations", body, timeout=RECONCILIATION_TIMEOUT_SEC)

    def reconciliations(self, **query: Any) -> dict[str, Any]:
        return self.get("/v1/reconciliations", **query)
