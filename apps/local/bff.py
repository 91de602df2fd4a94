"""What a company's own API does with Staking, over HTTP only: used by the demo and by the end-to-end tests."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from web3 import Web3

from apps.clients.base import CallFailed, Json
from apps.clients.shapes.ledger import Movement
from apps.clients.shapes.reconciliation import Reconciliation
from apps.local.errors import LocalError
from apps.local.stack import Stack
from apps.pool.states import REQUEST_TERMINAL, RequestStatus

T = TypeVar("T")

# From here a request goes nowhere by itself: it has ended, or ops must decide.
ENDED_OR_PARKED = REQUEST_TERMINAL | {RequestStatus.NEEDS_ATTENTION}
PAUSE_SEC = 0.1


class NotInTime(LocalError):
    """Something that had to happen did not; the message says what was seen last."""

    def __init__(self, what: str, seen: object) -> None:
        super().__init__(f"Waited in vain for {what}; last seen: {seen}", "See: staking logs pool-worker")


class Bff:
    """A company's API on one stack. Every call that has an effect is named by the caller, so it may be repeated."""

    def __init__(self, stack: Stack, timeout_sec: float = 120) -> None:
        self.stack = stack
        status = stack.status()
        self.clients = stack.clients()
        self.oracle = stack.oracle()
        self.pool_id = str(status["pool_id"])
        self.custody = str(status["addresses"]["custody"])
        self.operator = str(status["addresses"]["operator"])
        self.timeout_sec = timeout_sec

    def deposit(self, user_id: str, amount_wei: int, message_id: str) -> Movement:
        """A user's ETH arrives in custody, and the company posts it."""
        tx_hash = self.oracle.fund(self.custody, amount_wei)
        return self.clients.ledger.post_movement(message_id, "deposit", self.pool_id, user_id, amount_wei, tx_hash)

    def deposit_by_hash(self, user_id: str, amount_wei: int, message_id: str) -> Json:
        """A user's ETH arrives in custody; the company finds it among what nobody has posted, and books it by its transaction."""
        pool = self.clients.pool
        tx_hash = self.oracle.fund(self.custody, amount_wei)
        self.wait(
            f"{tx_hash} to be listed as unidentified",
            pool.unidentified_deposits,
            lambda found: any(item["tx_hash"] == tx_hash for item in found["items"]),
        )
        (done,) = self.finish([pool.deposit(message_id, user_id, tx_hash)])
        return done

    def pay_out(self, user_id: str, to: str, amount_wei: int, message_id: str) -> Json:
        """Allow the address, which a local stack lets be paid at once, send the user's ETH there, and wait until the books have
        it; returns the request."""
        pool = self.clients.pool
        pool.allow_address(f"{message_id}:address", user_id, to)
        (done,) = self.finish([pool.pay_out(message_id, user_id, amount_wei, to)])
        return done

    def finish(self, requests: Sequence[Json], status: str = RequestStatus.COMPLETED) -> list[Json]:
        """Wait until each request has the status; raises `NotInTime` at once when one ends in another."""
        wanted = [str(request["id"]) for request in requests]

        def look() -> list[Json]:
            return [self.clients.pool.request(request_id) for request_id in wanted]

        def ended(found: list[Json]) -> bool:
            for item in found:
                if item["status"] in ENDED_OR_PARKED and item["status"] != status:
                    raise NotInTime(f"{item['kind']} {item['id']} to be {status}", (item["status"], item["reason"]))
            return all(item["status"] == status for item in found)

        return self.wait(f"requests to be {status}", look, ended)

    def walked_to(self, block_number: int) -> Json:
        """Wait until the books have followed the chain up to a block."""
        return self.wait(
            f"the walk to pass block {block_number}",
            lambda: self.clients.pool.get("/v1/walk", pool_id=self.pool_id),
            lambda walk: (int(walk["block_number"]), walk["log_index"] is None) >= (block_number, True),
        )

    def rebase(self, delta_wei: int) -> int:
        """Report a reward or a loss of the whole protocol, wait until it is accrued; returns the report's block."""
        report = self.oracle.rebase(delta_wei)
        self.walked_to(report.block_number)
        return report.block_number

    def reconcile(self) -> Reconciliation:
        """Wait for a reconciliation at or above the current head; returns it, whatever its verdict."""
        head = int(self.oracle.web3.eth.block_number)

        def newest() -> list[Reconciliation]:
            return self.clients.protocols.reconciliations(limit=1).items

        (found,) = self.wait(
            f"a reconciliation at block {head} or later",
            newest,
            lambda runs: any((run.block_number or 0) >= head for run in runs),
        )
        return found

    def portfolio(self, user_id: str) -> Json:
        return self.clients.pool.portfolio(user_id)

    def eth_of(self, address: str) -> int:
        return int(self.oracle.web3.eth.get_balance(Web3.to_checksum_address(address)))

    def wait(self, what: str, look: Callable[[], T], done: Callable[[T], bool]) -> T:
        """Look until it is done; a service that is down for a moment is looked at again. Raises `NotInTime`."""
        deadline = time.monotonic() + self.timeout_sec
        seen: object = "nothing"
        while time.monotonic() < deadline:
            try:
                found = look()
            except CallFailed as error:
                seen = error
            else:
                if done(found):
                    return found
                seen = found
            time.sleep(PAUSE_SEC)
        raise NotInTime(what, seen)
