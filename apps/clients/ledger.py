"""Calls to the ledger."""

from collections.abc import Mapping, Sequence
from typing import Any

from apps.clients.base import AUDIT_TIMEOUT_SEC, ServiceClient, segment


class LedgerClient(ServiceClient):
    service = "ledger"

    def post_movement(
        self,
        message_id: str,
        kind: str,
        pool_id: str,
        user_id: str | None,
        amount_wei: int,
        reference: str | None = None,
    ) -> dict[str, Any]:
        """Post one movement; `CallRefused` insufficient_balance is final for this message_id."""
        return self.post("/v1/movements", movement(message_id, kind, pool_id, user_id, amount_wei, reference))

    def post_batch(self, movements: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Post up to 10,000 movements, all or nothing; a refusal uses up no message_id. Nothing to post is no call."""
        if not movements:
            return {"posted": 0, "replayed": 0, "first_id": None, "last_id": None}
        return self.post("/v1/movements/batch", {"movements": list(movements)})

    def movement(self, message_id: str) -> dict[str, Any] | None:
        return self.find(f"/v1/movements/{segment(message_id)}")

    def movements(self, **query: Any) -> dict[str, Any]:
        return self.get("/v1/movements", **query)

    def balance(self, pool_id: str, user_id: str) -> dict[str, Any]:
        return self.get(f"/v1/balances/{segment(user_id)}", pool_id=pool_id)

    def balances(self, pool_id: str, after: str | None = None, limit: int = 200) -> dict[str, Any]:
        return self.get("/v1/balances", pool_id=pool_id, after=after, limit=limit)

    def totals(self, pool_id: str) -> dict[str, Any]:
        return self.get("/v1/totals", pool_id=pool_id)

    def audit(self, pool_id: str) -> dict[str, Any]:
        return self.post("/v1/audits", {"pool_id": pool_id}, timeout=AUDIT_TIMEOUT_SEC)


def movement(
    message_id: str, kind: str, pool_id: str, user_id: str | None, amount_wei: int, reference: str | None = None
) -> dict[str, Any]:
    """The body of a movement."""
    return {
        "message_id": message_id,
        "kind": kind,
        "pool_id": pool_id,
        "user_id": user_id,
        "amount_wei": str(amount_wei),
        "reference": reference,
    }
