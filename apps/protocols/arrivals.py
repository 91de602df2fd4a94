"""ETH that came to custody, read from whole blocks up to the money horizon: transactions alone.

What a contract sends within its own call, a validator's withdrawal and a block's reward make no transaction to custody, and a
node without traces does not show them: the answer tells what of a reconciliation's surplus stays unexplained. Nothing is booked
by what is listed here; whoever books a transaction has it looked up again by its hash.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from apps.common.database import Sessions, transaction
from apps.ethereum.addresses import checksummed
from apps.ethereum.endpoints import Behind, ChainUnavailable
from apps.ethereum.jsonrpc import Endpoint
from apps.ethereum.logs import integer
from apps.protocols.calls import Call, well_formed
from apps.protocols.chain import Block, Chain, read_block
from apps.protocols.models import Arrival, ArrivalCursor, PostedDeposit

# Whole blocks are hundreds of kilobytes each on a public chain.
BLOCKS_PER_STEP = 25
# A catch-up that takes longer goes on at the next call; what is stored stays.
SCAN_BUDGET_SEC = 2.0
# So many blocks are read again where the last one read has left the chain; more at each further call.
REWIND_BLOCKS = 256

log = structlog.get_logger(__name__)


class Arrivals:
    """Reads new blocks on demand; two readers at once store the same rows once."""

    def __init__(self, chain: Chain, sessions: Sessions) -> None:
        self.chain = chain
        self.sessions = sessions

    def scan(self) -> tuple[int, int]:
        """Read what was not read yet of the blocks up to the horizon, as far as the time goes; returns the block up to which
        all is stored, and the horizon. Raises `ChainUnavailable`."""
        give_up = time.monotonic() + SCAN_BUDGET_SEC
        horizon = self.chain.horizon()
        known = self._known(horizon)
        while known.number < horizon and time.monotonic() < give_up:
            end = min(horizon, known.number + BLOCKS_PER_STEP)
            try:
                last, found = self._step(known, end)
            except ChainUnavailable:
                if not self._left_the_chain(known):
                    raise
                known = self._rewind(known)
                continue
            self._store(known, last, found)
            known = last
        return known.number, horizon

    def _step(self, known: Block, end: int) -> tuple[Block, list[dict[str, Any]]]:
        """`_read` of the first node that carries it through."""
        return self.chain.endpoints.first(
            lambda endpoint: well_formed(lambda one: self._read(one, known, end), endpoint)
        )

    def _read(self, endpoint: Endpoint, known: Block, end: int) -> tuple[Block, list[dict[str, Any]]]:
        """The blocks after `known` up to `end`: the last one, and rows of what came to custody in them. Raises `Behind` where
        they do not follow on `known`."""
        asked = [Call("eth_getBlockByNumber", [hex(number), True]) for number in range(known.number + 1, end + 1)]
        blocks = self.chain.ask(endpoint, asked)
        before = known.hash
        for block in blocks:
            if block is None or block["parentHash"] != before:
                raise Behind(f"No node shows blocks that follow on block {known.number} as it was read.")
            before = str(block["hash"])
        custody = self.chain.custody.lower()
        brought = [
            sent
            for block in blocks
            for sent in block["transactions"]
            if (sent["to"] or "").lower() == custody != sent["from"].lower() and integer(sent["value"]) > 0
        ]
        receipts = self.chain.ask(endpoint, [Call("eth_getTransactionReceipt", [sent["hash"]]) for sent in brought])
        rows = []
        for sent, receipt in zip(brought, receipts, strict=True):
            if receipt is None or receipt["blockHash"] != sent["blockHash"]:
                raise Behind(f"No node shows the receipt of {sent['hash']}.")
            if integer(receipt["status"]) == 1:
                rows.append(_row(sent))
        return read_block(blocks[-1]), rows

    def _known(self, horizon: int) -> Block:
        with transaction(self.sessions) as session:
            cursor = session.scalars(select(ArrivalCursor)).one_or_none()
            if cursor is not None:
                return Block(cursor.block_number, cursor.block_hash, 0)
        block = self.chain.block(self.chain.first_block(horizon))
        first = {"id": True, "start_block": block.number, "block_number": block.number, "block_hash": block.hash}
        with transaction(self.sessions) as session:
            session.execute(insert(ArrivalCursor).values(first).on_conflict_do_nothing())  # two first readers at once
            cursor = session.scalars(select(ArrivalCursor)).one()
            return Block(cursor.block_number, cursor.block_hash, 0)

    def _left_the_chain(self, known: Block) -> bool:
        """Whether the nodes show another block in its place."""
        return self.chain.block(known.number).hash != known.hash

    def _rewind(self, known: Block) -> Block:
        """Forget the last blocks, whose place others have taken: they are read again. Nothing was booked by them."""
        with transaction(self.sessions) as session:
            cursor = session.scalars(select(ArrivalCursor).with_for_update()).one()
            back = max(cursor.start_block, known.number - REWIND_BLOCKS)
        block = self.chain.block(back)
        log.warning("arrivals_read_again", from_block=block.number + 1, to_block=known.number)
        with transaction(self.sessions) as session:
            cursor = session.scalars(select(ArrivalCursor).with_for_update()).one()
            if (cursor.block_number, cursor.block_hash) == (known.number, known.hash):
                session.execute(delete(Arrival).where(Arrival.block_number > block.number))
                cursor.block_number, cursor.block_hash = block.number, block.hash
            return Block(cursor.block_number, cursor.block_hash, 0)

    def _store(self, known: Block, last: Block, rows: Sequence[Mapping[str, Any]]) -> None:
        with transaction(self.sessions) as session:
            cursor = session.scalars(select(ArrivalCursor).with_for_update()).one()
            if (cursor.block_number, cursor.block_hash) != (known.number, known.hash):
                return  # another reader has stored these
            if rows:
                session.execute(insert(Arrival).on_conflict_do_nothing(), rows)
                mark_posted(session, [row["tx_hash"] for row in rows])
            cursor.block_number, cursor.block_hash = last.number, last.hash


def mark_posted(session: Session, hashes: Sequence[str]) -> None:
    """Note on arrivals whether a movement names them. The caller holds the cursor's row."""
    posted = (
        select(func.min(PostedDeposit.posted_at))
        .where(PostedDeposit.tx_hash == Arrival.tx_hash)
        .correlate(Arrival)
        .scalar_subquery()
    )
    session.execute(
        Arrival.__table__.update().where(Arrival.tx_hash.in_(hashes)).values(posted_at=posted)  # type: ignore[attr-defined]
    )


def _row(sent: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "tx_hash": str(sent["hash"]).lower(),
        "block_number": integer(sent["blockNumber"]),
        "transaction_index": integer(sent["transactionIndex"]),
        "block_hash": str(sent["blockHash"]),
        "sender": checksummed(sent["from"]),
        "amount_wei": integer(sent["value"]),
    }
