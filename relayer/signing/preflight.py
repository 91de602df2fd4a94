"""Before a nonce is spent: deadline, policy, gas and simulation. What is refused here never costs a nonce."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self

import structlog
from sqlalchemy import Row, func, select, text, update
from sqlalchemy.orm import Session

from apps.common.database import transaction
from apps.common.wire import format_time
from apps.ethereum.jsonrpc import Endpoint, RpcError, Unanswered
from relayer.chain.doubts import STRONG_AFTER, drop, nonce_doubted, seen_again
from relayer.chain.replies import Reply, classify
from relayer.chain.reverts import SIMULATION_REVERTED, decode_revert
from relayer.chain.snapshot import Look, call_fields, simulate
from relayer.context import RelayerContext
from relayer.signing.gas import MAX_GAS_LIMIT, least_gas, with_margin
from relayer.signing.policy import PAYOUT, Proposal, Refusal, judge
from relayer.store.events import record
from relayer.store.models import Message, Signer, one_of

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Queued:
    """A queued message as read; `gas_limit` is the caller's, or None."""

    message_id: str
    seq: int
    sender: str
    to: str
    data: bytes
    value_wei: int
    gas_limit: int
    gas_named: bool
    purpose: str | None
    deadline: datetime | None
    reason: dict[str, Any] | None
    waited_a_day: bool

    @classmethod
    def columns(cls) -> tuple[Any, ...]:
        """What `of` reads."""
        return (
            Message.message_id, Message.seq, Message.from_address, Message.to_address, Message.data, Message.value_wei,
            Message.gas_limit, Message.request["gas_limit"].astext.is_not(None).label("gas_named"), Message.purpose,
            Message.deadline, Message.reason,
            (Message.created_at < func.now() - text("interval '24 hours'")).label("waited_a_day"),
        )  # fmt: skip

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        return cls(
            message_id=row.message_id,
            seq=row.seq,
            sender=row.from_address,
            to=row.to_address,
            data=bytes(row.data),
            value_wei=row.value_wei,
            gas_limit=row.gas_limit,
            gas_named=row.gas_named,
            purpose=row.purpose,
            deadline=row.deadline,
            reason=row.reason,
            waited_a_day=row.waited_a_day,
        )

    @property
    def proposal(self) -> Proposal:
        gas_limit = self.gas_limit if self.gas_named else None
        return Proposal(self.sender, self.to, self.data, self.value_wei, gas_limit, self.purpose)


def judge_all(context: RelayerContext, look: Look, rows: Sequence[Queued]) -> tuple[list[Queued], list[str]]:
    """Hold messages against the policy; returns those that it allows, and the ids of those that were rejected.

    A payout needs the names of the protocol's contracts, which only the chain knows: while the node does not say, it
    waits.
    """
    protocol: Mapping[str, str] | None = {}
    if any(row.purpose == PAYOUT for row in rows):
        try:
            protocol = context.protocol.names(look.endpoint)
        except Unanswered:
            protocol = None
    allowed: list[Queued] = []
    rejected: list[str] = []
    for row in rows:
        refusal = judge(context.rules, row.proposal, protocol)
        if refusal is not None:
            rejected += reject(context, row, refusal)
        elif protocol is None and row.purpose == PAYOUT:
            note(context, row, "targets_unknown", "The node does not say which contracts are the protocol's.")
        else:
            allowed.append(row)
    return allowed, rejected


def preflight(
    context: RelayerContext, look: Look, rows: Sequence[Queued], oldest_in_flight: int | None
) -> tuple[list[Queued], list[str]]:
    """Simulate one sender's messages; returns those that may be signed, with their gas limits, and the ids of those
    that were rejected."""
    rejected: list[str] = []
    ready: list[Queued] = []
    for row, result in zip(rows, _simulate(look.endpoint, rows), strict=True):
        reverted = _reverted(result)
        if reverted is not None and oldest_in_flight is not None and oldest_in_flight < row.seq:
            note(context, row, reverted.code, f"{reverted.detail} (asked again once what is in flight is mined)")
        elif reverted is not None and _seen_again(context, look, row, reverted):
            rejected += reject(context, row, reverted)
        elif reverted is not None:
            note(context, row, reverted.code, f"{reverted.detail} (asked again at the next block)")
        elif isinstance(result, RpcError) and classify(result.message) is not Reply.FUNDS:
            note(context, row, "simulation_failed", "The node could not simulate it; it is asked again.")
        else:
            ready.append(row if row.gas_named else replace(row, gas_limit=_gas_limit(row, result)))
    return ready, rejected


def expire_queued(context: RelayerContext) -> list[str]:
    """End queued messages whose deadline has passed, by the database's clock.

    Not while their key is quarantined or its nonce in doubt: a transaction of it that is not recorded yet may have
    executed them.
    """
    quarantined = select(Signer.address).where(
        Signer.chain_id == Message.chain_id, Signer.address == Message.from_address, Signer.state == "quarantined"
    )
    with transaction(context.sessions) as session:
        rows = session.execute(
            select(Message.message_id, Message.deadline)
            .where(Message.status == "queued", Message.deadline <= func.clock_timestamp(), ~quarantined.exists())
            .where(~nonce_doubted(Message.chain_id, Message.from_address))
            .order_by(Message.seq)
            .with_for_update(skip_locked=True)
        ).all()
        for row in rows:
            detail = f"The deadline {format_time(row.deadline)} passed before it was signed."
            end(session, row.message_id, "expired", Refusal("deadline_passed", detail))
        return [row.message_id for row in rows]


def lock_queued(session: Session, message_ids: Sequence[str]) -> set[str]:
    """Lock those that are still queued and in time, in order of acceptance; what another holds is left out."""
    query = (
        select(Message.message_id)
        .where(
            one_of(Message.message_id, message_ids),
            Message.status == "queued",
            (Message.deadline.is_(None)) | (Message.deadline > func.clock_timestamp()),
        )
        .order_by(Message.seq)
        .with_for_update(skip_locked=True)
    )
    return set(session.scalars(query))


def reject(context: RelayerContext, row: Queued, refusal: Refusal) -> list[str]:
    """End a queued message without a nonce; returns its id, unless somebody else has moved it meanwhile."""
    with transaction(context.sessions) as session:
        if not lock_queued(session, [row.message_id]):
            return []
        end(session, row.message_id, "rejected", refusal)
    log.warning("message_rejected", message_id=row.message_id, code=refusal.code)
    return [row.message_id]


def note(context: RelayerContext, row: Queued, code: str, detail: str) -> None:
    """Say on a queued message why it waits."""
    reason = {"code": code, "detail": detail}
    if row.reason == reason:
        return
    with transaction(context.sessions) as session:
        if lock_queued(session, [row.message_id]):
            set_reason(session, row.message_id, reason)
            if row.reason is None or row.reason["code"] != code:
                record(session, row.message_id, "waiting", reason)


def end(session: Session, message_id: str, status: str, refusal: Refusal) -> None:
    """End a locked message that has no nonce."""
    reason = {"code": refusal.code, "detail": refusal.detail}
    session.execute(
        update(Message)
        .where(Message.message_id == message_id)
        .values(status=status, reason=reason, updated_at=func.clock_timestamp()),
        execution_options={"synchronize_session": False},
    )
    record(session, message_id, status, reason)


def set_reason(session: Session, message_id: str, reason: dict[str, str]) -> None:
    """Say on a locked message why it waits; nothing else of it changes."""
    session.execute(
        update(Message).where(Message.message_id == message_id).values(reason=reason),
        execution_options={"synchronize_session": False},
    )


def _seen_again(context: RelayerContext, look: Look, row: Queued, reverted: Refusal) -> bool:
    """Whether it would revert at a later block too, and by the word of another node where one answers: a node that lags,
    by a block or for good, must not end a message that is right."""
    times = seen_again(context.sessions, f"simulation:{row.message_id}", {"code": reverted.code}, look.head)
    if times < STRONG_AFTER:
        return False
    for endpoint in context.endpoints.awake():
        if endpoint is not look.endpoint:
            (result,) = _simulate(endpoint, [row])
            if not isinstance(result, RpcError):
                log.warning("endpoints_disagree", message_id=row.message_id, endpoint=endpoint.number)
                return False
    drop(context.sessions, [f"simulation:{row.message_id}"])
    return True


def _simulate(endpoint: Endpoint, rows: Sequence[Queued]) -> list[Any]:
    """What running each would give: an estimate where the caller named no gas limit, else a call with the one named."""
    results: list[Any] = [None] * len(rows)
    for gas_named, method in ((True, "eth_call"), (False, "eth_estimateGas")):
        places = [place for place, row in enumerate(rows) if row.gas_named is gas_named]
        calls = [
            call_fields(row.sender, row.to, row.data, row.value_wei, row.gas_limit if gas_named else MAX_GAS_LIMIT)
            for row in (rows[place] for place in places)
        ]
        try:
            found = simulate(endpoint, calls, method)
        except Unanswered as error:
            found = [RpcError(0, str(error)) for _ in calls]
        for place, result in zip(places, found, strict=True):
            results[place] = result
    return results


def _gas_limit(row: Queued, estimate: Any) -> int:
    """GAS_LIMIT where it suffices; more where the node's estimate, with a margin, or the calldata itself needs it."""
    try:
        needed = with_margin(int(estimate, 16))
    except (TypeError, ValueError):
        needed = 0
    return min(MAX_GAS_LIMIT, max(row.gas_limit, least_gas(row.data), needed))


def _reverted(result: Any) -> Refusal | None:
    """What the simulation says against sending, where it says that it would run and fail."""
    if not isinstance(result, RpcError):
        return None
    message = result.message.lower()
    if result.data or result.code == 3 or "revert" in message:
        return Refusal(SIMULATION_REVERTED, decode_revert(result.data).detail)
    if "out of gas" in message or "intrinsic gas" in message or "gas required exceeds" in message:
        return Refusal("gas_limit_too_low", "The gas limit does not suffice.")
    return None
