"""What ops ask of messages and signers. Nothing here signs or sends: it leaves wishes that the pump follows."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from apps.common.database import transaction
from apps.ethereum.jsonrpc import Endpoint
from relayer.api.errors import (
    AlreadyFinal,
    BeingReplaced,
    NotSigned,
    SignerDoubted,
    SignerNotFound,
    SignerQuarantined,
    TransactionNotFound,
)
from relayer.api.rendering import render_messages
from relayer.chain.doubts import doubted, nonce_of
from relayer.chain.snapshot import answered
from relayer.context import RelayerContext
from relayer.lifecycle.external import end_done
from relayer.lifecycle.release import release
from relayer.signing.gas import MAX_GAS_LIMIT
from relayer.signing.spending_caps import left_of_the_day
from relayer.store.events import record
from relayer.store.models import FINAL, OPEN, Message, Signer

CANCEL_ASKED = {
    "code": "cancel_requested",
    "detail": "An empty transaction races it for its nonce; whichever is mined decides.",
}
_PER_SIGNER = ("eth_getTransactionCount", "eth_getBalance")


class RelayerOperations:
    def __init__(self, context: RelayerContext, wake: Callable[[], None]) -> None:
        self._context = context
        self._wake = wake

    def cancel(self, message_id: str) -> tuple[dict[str, Any], bool]:
        """Take a message back; returns it, and whether that is decided already.

        A queued one is cancelled at once. A signed one may be mined at any time, so an empty transaction is sent in its
        place, and the one that is mined decides. Cancelling twice is one cancelling. Raises `AlreadyFinal`, or
        `SignerQuarantined` or `SignerDoubted` for a queued one: what else used its key may have executed it, and that is not
        known yet.
        """
        end_done(self._context)
        with transaction(self._context.sessions) as session:
            row = _locked(session, message_id)
            if row.status in FINAL and row.status != "cancelled":
                raise AlreadyFinal(f"The message has ended {row.status}, and an end is final.")
            if row.status == "queued":
                signer = session.get(Signer, (row.chain_id, row.from_address))
                if signer is not None and signer.state == "quarantined":
                    raise SignerQuarantined
                if doubted(session, [nonce_of(row.chain_id, row.from_address)]):
                    raise SignerDoubted
                row.status = "cancelled"
                row.reason = {"code": "cancelled_by_caller", "detail": "Taken back before it was signed."}
                row.updated_at = func.clock_timestamp()
                session.flush()
                record(session, message_id, "cancelled")
            elif row.status in OPEN and row.intent == "none":
                row.intent, row.reason = "cancel", CANCEL_ASKED
                row.updated_at = func.clock_timestamp()
                session.flush()
                record(session, message_id, "cancel_requested")
            rendered = _rendered(session, row)
        self._wake()
        return rendered, rendered["status"] == "cancelled"

    def speed_up(self, message_id: str) -> dict[str, Any]:
        """Have the price raised at the next tick, within the caps.

        Raises `NotSigned`, `BeingReplaced` or `AlreadyFinal`. Asking twice before it is done is one raise.
        """
        with transaction(self._context.sessions) as session:
            row = _locked(session, message_id)
            if row.status in FINAL:
                raise AlreadyFinal(f"The message has ended {row.status}, and an end is final.")
            if row.status == "queued":
                raise NotSigned
            if row.intent != "none":
                raise BeingReplaced
            if not row.raise_asked and row.status != "mined":
                row.raise_asked = True
                row.updated_at = func.clock_timestamp()
                session.flush()
                record(session, message_id, "speed_up_requested")
            rendered = _rendered(session, row)
        self._wake()
        return rendered

    def set_signer_state(self, address: str, state: str) -> dict[str, Any]:
        """``active``, ``draining`` or ``paused``; raises `SignerNotFound` or `SignerQuarantined`."""
        chain_id = self._context.settings.chain_id
        with transaction(self._context.sessions) as session:
            row = session.scalars(
                select(Signer)
                .where(Signer.chain_id == chain_id, func.lower(Signer.address) == address.lower())
                .with_for_update()
            ).one_or_none()
            if row is None:
                raise SignerNotFound
            if row.state == "quarantined":
                raise SignerQuarantined
            row.state = state
            row.updated_at = func.clock_timestamp()
            known = row.address
        self._wake()
        return next(item for item in self.signers()["items"] if item["address"] == known)

    def release_signer(self, address: str) -> dict[str, Any]:
        """Lift a quarantine, see `relayer.lifecycle.release.release`; the key is left paused."""
        known = release(self._context, address)
        self._wake()
        return next(item for item in self.signers()["items"] if item["address"] == known)

    def limits(self) -> dict[str, Any]:
        """What will be applied to each message and to a day, so that a caller builds what passes; all but the last in
        wei. Moves inside the house count for no day."""
        settings = self._context.settings
        with transaction(self._context.sessions) as session:
            left = left_of_the_day(session, self._context)
        return {
            "max_value_per_tx_wei": str(settings.max_value_per_tx_wei),
            "max_value_per_day_wei": str(settings.max_value_per_day_wei),
            "value_left_today_wei": str(left.value_wei),
            "max_gas_per_tx_wei": str(settings.max_gas_per_tx_wei),
            "max_gas_per_day_wei": str(settings.max_gas_per_day_wei),
            "gas_left_today_wei": str(left.gas_wei),
            "max_gas_limit": MAX_GAS_LIMIT,
        }

    def signers(self) -> dict[str, Any]:
        """Every key held or used, with its state in the database and on the chain; raises `ChainUnavailable`."""
        chain_id = self._context.settings.chain_id
        with transaction(self._context.sessions) as session:
            rows = {row.address: row for row in session.scalars(select(Signer).where(Signer.chain_id == chain_id))}
            counts = session.execute(
                select(Message.from_address, func.count())
                .where(Message.chain_id == chain_id, Message.status.in_(OPEN))
                .group_by(Message.from_address)
            )
            open_messages = {row.from_address: int(row[1]) for row in counts}
        addresses = list(dict.fromkeys([*self._context.settings.keyring.addresses, *rows]))

        def look(endpoint: Endpoint) -> list[Any]:
            return answered(
                endpoint.batch([(method, [address, "latest"]) for address in addresses for method in _PER_SIGNER])
            )

        seen = [int(value, 16) for value in self._context.endpoints.first(look)]
        items = []
        for address, latest, balance in zip(addresses, seen[::2], seen[1::2], strict=True):
            row = rows.get(address)
            items.append(
                {
                    "address": address,
                    "state": row.state if row else "new",
                    "balance_wei": str(balance),
                    "next_nonce": row.next_nonce if row else latest,
                    "latest_nonce": latest,
                    "in_flight": open_messages.get(address, 0),
                }
            )
        return {"items": items}


def _locked(session: Session, message_id: str) -> Message:
    row = session.get(Message, message_id, with_for_update=True)
    if row is None:
        raise TransactionNotFound
    return row


def _rendered(session: Session, row: Message) -> dict[str, Any]:
    session.flush()
    session.refresh(row)
    return render_messages(session, [row])[0]
