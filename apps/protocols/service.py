"""What protocols answers: state, history, builders, withdrawals, APR, reconciliations."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from apps.clients.ledger import LedgerClient
from apps.common.database import Sessions, transaction
from apps.common.idempotency import Answer, run_once
from apps.common.wire import new_id, page, time_text
from apps.ethereum.endpoints import ChainUnavailable
from apps.protocols import reconciliation, rescan
from apps.protocols.addresses import AddressCheck
from apps.protocols.apr import apr_of
from apps.protocols.chain import Chain
from apps.protocols.errors import ChainReorganized
from apps.protocols.history import History, parse_cursor
from apps.protocols.models import MessageKey, ReconciliationRun, Rescan
from apps.protocols.rescan import Found
from apps.protocols.withdrawals import read_receipt, read_statuses

T = TypeVar("T")

WEEK_SEC = 7 * 86_400
REBASES_OF_A_WEEK = 200  # seven on mainnet; a testnet's frame of 77 minutes makes 131
LAST_LOG = 2**31 - 1


class ProtocolsService:
    """Owns the transactions of protocols' endpoints; reads go to `chain` and `history` directly."""

    def __init__(self, chain: Chain, sessions: Sessions, ledger: LedgerClient, pool_id: str) -> None:
        self.chain = chain
        self.sessions = sessions
        self.ledger = ledger
        self.pool_id = pool_id
        self.history = History(chain, sessions)
        self.addresses = AddressCheck(chain)

    def block(self, number: int) -> dict[str, Any]:
        """Number, hash and time of a block, as `state` shows them."""
        found = self._as_read(number, lambda wanted: self.chain.block(number, wanted))
        time = time_text(datetime.fromtimestamp(found.timestamp, UTC))
        return {"block_number": found.number, "block_hash": found.hash, "block_time": time}

    def state(self, number: int | None) -> dict[str, Any]:
        """The `lido state` shape. A block that was read is shown as it was read: by a node that has it as that, until the
        history itself has found that the chain has another."""
        return self._as_read(number, lambda wanted: self.chain.state(number, wanted))

    def receipt(self, tx_hash: str) -> dict[str, Any]:
        """The `receipt` shape; `NotFound` when no node has it in a block that is the chain's as far as is known."""
        return read_receipt(self.chain, tx_hash, self.history.known_hash)

    def statuses(self, ids: Sequence[int]) -> list[dict[str, Any]]:
        """The `withdrawal status` shape of up to 1,000 ids."""
        return [
            {
                "withdrawal_id": item["withdrawal_id"],
                "owner": item["owner"],
                "amount_wei": str(item["amount"]),
                "requested_at": time_text(datetime.fromtimestamp(item["timestamp"], UTC)),
                "finalized": item["finalized"],
                "claimed": item["claimed"],
                "claimable_wei": str(item["claimable"]),
            }
            for item in read_statuses(self.chain, ids, self.chain.block())
        ]

    def rebases(self, after_block: int, after: str | None, limit: int) -> dict[str, Any]:
        """The history's rebases after a block, or after the cursor of the page before; each item with its rebase's own
        fields beside it, too."""
        place = (after_block, LAST_LOG) if after is None else parse_cursor(after)
        found = self.history.page(place, limit, kinds=("rebase",))
        return {"items": [{**item["rebase"], **item} for item in found["items"]], "next": found["next"]}

    def apr(self) -> dict[str, Any]:
        """The rate of the last rebase, and over the rebases of the last seven days."""
        rebases = self.history.last_rebases(REBASES_OF_A_WEEK)
        week: list[dict[str, Any]] = []
        elapsed = 0
        for rebase in reversed(rebases):
            week.insert(0, rebase)
            elapsed += int(rebase["time_elapsed_sec"])
            if elapsed >= WEEK_SEC:
                break
        return {"last": apr_of(rebases[-1:]), "seven_day": apr_of(week)}

    def reconcile(self, message_id: str, block: int | None, rewards: dict[str, int] | None) -> Answer:
        """Compare books and chain once per message_id. Everything is read before the transaction opens."""
        request = {
            "block": None if block is None else str(block),
            "rewards": None if rewards is None else {name: str(value) for name, value in sorted(rewards.items())},
        }
        facts = None
        if not self._known(message_id):
            facts = reconciliation.gather(self.chain, self.history, self.ledger, self.sessions, self.pool_id, block)

        def work(session: Session) -> dict[str, Any]:
            assert facts is not None  # a known message_id never comes here
            lines = reconciliation.judge(facts, rewards)
            # The latest one is what ops are shown and alarmed by.
            row = ReconciliationRun(
                id=new_id(session.scalar(select(func.max(ReconciliationRun.id)))),
                message_id=message_id,
                block_number=facts.block.number,
                block_hash=facts.block.hash,
                verdict="ok" if all(line["ok"] for line in lines) else "drift",
                lines=lines,
            )
            session.add(row)
            session.flush()
            session.refresh(row)
            return _render(row)

        return run_once(
            self.sessions, MessageKey, message_id=message_id, endpoint="reconciliations", request=request, work=work
        )

    def rescan(self, request: dict[str, Any]) -> Answer:
        """Read a part of the history again and mend what is stored of it, once per message_id; see
        `apps.protocols.rescan`. Everything is read before the transaction opens."""
        given = {**request, "from_block": str(request["from_block"])}
        given["to_block"] = None if request["to_block"] is None else str(request["to_block"])
        message_id = given.pop("message_id")
        found: Found | None = None
        if not self._known(message_id):
            found = rescan.gather(self.history, request["from_block"], request["to_block"])

        def work(session: Session) -> dict[str, Any]:
            assert found is not None  # a known message_id never comes here
            return rescan.replace(session, found, request)

        return run_once(self.sessions, MessageKey, message_id=message_id, endpoint="rescan", request=given, work=work)

    def accept_difference(self, request: dict[str, Any]) -> Answer:
        """Take it that shares came or went in a block without a log, once per message_id and block; only where the chain
        shows just that."""
        given = {name: str(value) for name, value in request.items() if name != "message_id"}
        if not self._known(request["message_id"]):
            rescan.check_difference(self.history, request["block_number"], request["shares"])
        return run_once(
            self.sessions,
            MessageKey,
            message_id=request["message_id"],
            endpoint="share-differences",
            request=given,
            work=lambda session: rescan.add_difference(session, request),
        )

    def rescans(self, limit: int, after: str | None) -> dict[str, Any]:
        """What was rescanned, newest first."""
        query = select(Rescan).order_by(Rescan.id.desc()).limit(limit + 1)
        if after is not None:
            query = query.where(Rescan.id < after)
        with transaction(self.sessions) as session:
            rows = session.scalars(query).all()
        return page([rescan.render_rescan(row) for row in rows], limit, lambda item: str(item["id"]))

    def reconciliations(self, limit: int, after: str | None, verdict: str | None) -> dict[str, Any]:
        """Runs, newest first."""
        query = select(ReconciliationRun).order_by(ReconciliationRun.id.desc()).limit(limit + 1)
        if after is not None:
            query = query.where(ReconciliationRun.id < after)
        if verdict is not None:
            query = query.where(ReconciliationRun.verdict == verdict)
        with transaction(self.sessions) as session:
            rows = session.scalars(query).all()
        return page([_render(row) for row in rows], limit, lambda item: str(item["id"]))

    def _as_read(self, number: int | None, read: Callable[[str | None], T]) -> T:
        """What is read of a block, given the hash it was read with before, if it was."""
        wanted = None if number is None else self.history.known_hash(number)
        try:
            return read(wanted)
        except ChainUnavailable:
            if wanted is None:
                raise
            try:
                self.history.scan()
            except ChainReorganized:
                return read(None)
            raise

    def _known(self, message_id: str) -> bool:
        with transaction(self.sessions) as session:
            return session.get(MessageKey, message_id) is not None


def _render(row: ReconciliationRun) -> dict[str, Any]:
    return {
        "id": row.id,
        "message_id": row.message_id,
        "block_number": row.block_number,
        "block_hash": row.block_hash,
        "verdict": row.verdict,
        "reason": row.reason,
        "lines": row.lines,
        "created_at": time_text(row.created_at),
    }
