"""Calls to the relayer."""

from apps.clients.base import ServiceClient, segment
from apps.clients.shapes.relayer import Limits, NewTransaction, Signer, Signers, Transaction, TransactionPage
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

    def signers(self) -> list[Signer]:
        return self.read(Signers, "/v1/signers").items

    def limits(self) -> Limits:
        """The caps that every message will be held against."""
        return self.read(Limits, "/v1/limits")
