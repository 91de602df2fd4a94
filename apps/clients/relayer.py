"""Calls to the relayer."""

from collections.abc import Mapping
from typing import Any

from apps.clients.base import ServiceClient, segment


class RelayerClient(ServiceClient):
    service = "relayer"

    def send(self, message: Mapping[str, Any]) -> dict[str, Any]:
        return self.post("/v1/transactions", message)

    def transaction(self, message_id: str) -> dict[str, Any] | None:
        return self.find(f"/v1/transactions/{segment(message_id)}")

    def transactions(self, **query: Any) -> dict[str, Any]:
        return self.get("/v1/transactions", **query)

    def signers(self) -> list[dict[str, Any]]:
        return list(self.get("/v1/signers")["items"])

    def limits(self) -> dict[str, Any]:
        """The caps that every message will be held against."""
        return self.get("/v1/limits")
