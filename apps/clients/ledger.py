"""Calls to the ledger."""

from collections.abc import Sequence

from apps.clients.audits import AuditedClient
from apps.clients.base import segment
from apps.clients.shapes.ledger import (
    Balance,
    BalancePage,
    BatchAnswer,
    Movement,
    MovementPage,
    NewMovement,
    NewMovementBatch,
    Statement,
    Totals,
)
from apps.common.shapes import dump


class LedgerClient(AuditedClient):
    service = "ledger"

    def post_movement(
        self,
        message_id: str,
        kind: str,
        pool_id: str,
        user_id: str | None,
        amount_wei: int,
        reference: str | None = None,
    ) -> Movement:
        """Post one movement; the same again answers the same."""
        body = dump(movement(message_id, kind, pool_id, user_id, amount_wei, reference))
        return self.write(Movement, "/v1/movements", body)

    def post_batch(self, movements: Sequence[NewMovement]) -> BatchAnswer:
        """Post up to 10,000 movements, all or nothing; a refusal uses up no message_id. Nothing to post is no call."""
        if not movements:
            return BatchAnswer(0, 0, None, None)
        return self.write(BatchAnswer, "/v1/movements/batch", dump(NewMovementBatch(list(movements))))

    def movement(self, message_id: str) -> Movement | None:
        return self.find(Movement, f"/v1/movements/{segment(message_id)}")

    def movements(self, **query: str | int | None) -> MovementPage:
        return self.read(MovementPage, "/v1/movements", **query)

    def balance(self, pool_id: str, user_id: str) -> Balance:
        return self.read(Balance, f"/v1/balances/{segment(user_id)}", pool_id=pool_id)

    def balances(
        self, pool_id: str, after: str | None = None, limit: int = 200, prefix: str | None = None
    ) -> BalancePage:
        return self.read(BalancePage, "/v1/balances", pool_id=pool_id, after=after, limit=limit, prefix=prefix)

    def statement(
        self, pool_id: str, user_id: str, start: str, end: str | None = None, after: str | None = None, limit: int = 200
    ) -> Statement:
        """A page of a user's statement over a span, its ends in RFC 3339."""
        span = {"from": start, "to": end}
        return self.read(
            Statement, f"/v1/statements/{segment(user_id)}", pool_id=pool_id, after=after, limit=limit, **span
        )

    def totals(self, pool_id: str) -> Totals:
        return self.read(Totals, "/v1/totals", pool_id=pool_id)


def movement(
    message_id: str, kind: str, pool_id: str, user_id: str | None, amount_wei: int, reference: str | None = None
) -> NewMovement:
    """A movement to post."""
    return NewMovement(
        message_id=message_id,
        kind=kind,
        pool_id=pool_id,
        user_id=user_id,
        amount_wei=amount_wei,
        reference=reference,
    )
