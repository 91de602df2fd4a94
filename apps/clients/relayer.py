"""Calls to the relayer."""

from collections.abc import Sequence

from apps.clients.base import ServiceClient, segment
from apps.clients.shapes.fields import MAX_MESSAGE_IDS
from apps.clients.shapes.relayer import (
    Limits,
    NewTransaction,
    Signer,
    Signers,
    Transaction,
    TransactionPage,
)
from apps.common.shapes import dump


class RelayerClient(ServiceClient):
    service = "relayer"

    def send(self, message: NewTransaction) -> Transaction:
        """Have a message signed and sent, once for its message_id."""
        return self.write(Transaction, "/v1/transactions", dump(message))

    def transaction(self, message_id: str) -> Transaction | None:
        return self.find(Transaction, f"/v1/transactions/{segment(message_id)}")

    def transactions(self, **query: str | int | None) -> TransactionPage:
        return self.read(TransactionPage, "/v1/transactions", **query)

    def known(self, message_ids: Sequence[str]) -> list[Transaction]:
        """Those of the messages that the relayer has; a hundred a call."""
        found: list[Transaction] = []
        for start in range(0, len(message_ids), MAX_MESSAGE_IDS):
            names = ",".join(message_ids[start : start + MAX_MESSAGE_IDS])
            found += self.transactions(message_ids=names, limit=MAX_MESSAGE_IDS).items
        return found

    def signers(self) -> list[Signer]:
        return self.read(Signers, "/v1/signers").items

    def limits(self) -> Limits:
        """The caps that every message will be held against."""
        return self.read(Limits, "/v1/limits")
