"""Calls to the pool: what a BFF does, used by the demo and the tests.

It answers with the JSON as it came, as a BFF in another language would see it.
"""

from collections.abc import Sequence
from typing import Any

from apps.clients.base import Json, ServiceClient, segment


class PoolClient(ServiceClient):
    service = "pool"

    def stake(self, message_id: str, user_id: str, amount_wei: int) -> Json:
        return self.post("/v1/stakes", {"message_id": message_id, "user_id": user_id, "amount_wei": str(amount_wei)})

    def unstake(self, message_id: str, user_id: str, amount_wei: int | str) -> Json:
        return self.post("/v1/unstakes", {"message_id": message_id, "user_id": user_id, "amount_wei": str(amount_wei)})

    def claim_reward(self, message_id: str, user_id: str) -> Json:
        return self.post("/v1/reward-claims", {"message_id": message_id, "user_id": user_id})

    def pay_out(self, message_id: str, user_id: str, amount_wei: int, to: str) -> Json:
        asked = {"message_id": message_id, "user_id": user_id, "amount_wei": str(amount_wei), "to": to}
        return self.post("/v1/payouts", asked)

    def allow_address(self, message_id: str, user_id: str, address: str, label: str | None = None) -> Json:
        asked = {"message_id": message_id, "address": address, "label": label}
        return self.post(f"/v1/users/{segment(user_id)}/payout-addresses", asked)

    def deposit(self, message_id: str, user_id: str, tx_hash: str) -> Json:
        return self.post("/v1/deposits", {"message_id": message_id, "user_id": user_id, "tx_hash": tx_hash})

    def unidentified_deposits(self, **query: Any) -> Json:
        return self.get("/v1/deposits/unidentified", **query)

    def request(self, request_id: str) -> Json:
        return self.get(f"/v1/requests/{segment(request_id)}")

    def requests(self, **query: Any) -> Json:
        return self.get("/v1/requests", **query)

    def batches(self, **query: Any) -> Json:
        return self.get("/v1/batches", **query)

    def portfolio(self, user_id: str) -> Json:
        return self.get(f"/v1/users/{segment(user_id)}/portfolio")

    def events(self, after: int = 0, wait: float = 0.0, **query: Any) -> Json:
        """Events behind a sequence number; with `wait` (below the client's timeout) the answer may wait for the next one."""
        return self.get("/v1/events", after=after, wait=wait or None, **query)

    def create_webhook(
        self, message_id: str, url: str, types: Sequence[str] | None = None, secret: str | None = None
    ) -> Json:
        given = {"message_id": message_id, "url": url, "types": types, "secret": secret}
        return self.post("/v1/webhooks", {name: value for name, value in given.items() if value is not None})

    def webhooks(self) -> Json:
        return self.get("/v1/webhooks")

    def webhook(self, webhook_id: str) -> Json:
        return self.get(_webhook(webhook_id))

    def change_webhook(self, webhook_id: str, **changes: Any) -> Json:
        """`url`, `types`, or both."""
        return self.post(_webhook(webhook_id, "change"), changes)

    def disable_webhook(self, webhook_id: str) -> Json:
        return self.post(_webhook(webhook_id, "disable"), {})

    def enable_webhook(self, webhook_id: str) -> Json:
        return self.post(_webhook(webhook_id, "enable"), {})

    def delete_webhook(self, webhook_id: str) -> Json:
        return self.post(_webhook(webhook_id, "delete"), {})

    def rotate_webhook_secret(self, message_id: str, webhook_id: str, **wanted: Any) -> Json:
        """`secret`, `overlap_sec`, both or neither."""
        return self.post(_webhook(webhook_id, "rotate-secret"), {"message_id": message_id, **wanted})

    def test_webhook(self, message_id: str, webhook_id: str) -> Json:
        return self.post(_webhook(webhook_id, "test"), {"message_id": message_id})

    def replay_webhook(self, message_id: str, webhook_id: str, **start: Any) -> Json:
        """`after_sequence`, or `since`."""
        return self.post(_webhook(webhook_id, "replay"), {"message_id": message_id, **start})

    def deliveries(self, webhook_id: str, **query: Any) -> Json:
        return self.get(_webhook(webhook_id, "deliveries"), **query)

    def retry_dead_letters(self, webhook_id: str) -> Json:
        return self.post(_webhook(webhook_id, "deliveries", "retry"), {})


def _webhook(webhook_id: str, *more: str) -> str:
    return "/".join(["/v1/webhooks", segment(webhook_id), *more])
