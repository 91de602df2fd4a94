"""Before a nonce is spent: deadline, policy, gas and simulation. What is refused here never costs a nonce."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import structlog
from sqlalchemy import func, select

from apps.common.database import transaction
from apps.common.wire import format_time
from apps.ethereum.constants import MAX_GAS
from apps.ethereum.jsonrpc import Endpoint, RpcError, Unanswered
from apps.ethereum.reverts import decode_revert
from relayer.chain.doubts import STRONG_AFTER, drop, nonce_doubted, seen_again
from relayer.chain.replies import Reply, classify
from relayer.chain.reverts import SIMULATION_REVERTED
from relayer.chain.snapshot import ChainSnapshot, call_fields, simulate
from relayer.context import RelayerContext
from relayer.signing.policy import PAYOUT, Refusal, judge, least_gas, with_margin
from relayer.store.messages import Queued, end, note, reject
from relayer.store.models import Message, Signer
from relayer.store.states import SignerState, TransactionStatus

log = structlog.get_logger(__name__)


def judge_all(
    context: RelayerContext, snapshot: ChainSnapshot, rows: Sequence[Queued]
) -> tuple[list[Queued], list[str]]:
    """Hold messages against the policy; returns those that it allows, and the ids of those that were rejected.

    A payout is judged with the addresses of the protocol's contracts, which only the chain knows: while the node does not
    tell them, payouts wait.
    """
    protocol: Mapping[str, str] | None = {}
    if any(row.purpose == PAYOUT for row in rows):
        try:
            protocol = context.protocol.names(snapshot.endpoint)
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
    context: RelayerContext, snapshot: ChainSnapshot, rows: Sequence[Queued], oldest_in_flight: int | None
) -> tuple[list[Queued], list[str]]:
    """Simulate one sender's messages; returns those that may be signed, with their gas limits, and the ids of those
    that were rejected."""
    rejected: list[str] = []
    ready: list[Queued] = []
    for row, result in zip(rows, _simulate(snapshot.endpoint, rows), strict=True):
        reverted = _reverted(result)
        if reverted is not None and oldest_in_flight is not None and oldest_in_flight < row.seq:
            note(context, row, reverted.code, f"{reverted.detail} (asked again once what is in flight is mined)")
        elif reverted is not None and _seen_again(context, snapshot, row, reverted):
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

    Not while their key is quarantined or its nonce in doubt: another sender may have executed them with it, and that is
    not recorded yet.
    """
    quarantined = select(Signer.address).where(
        Signer.chain_id == Message.chain_id,
        Signer.address == Message.from_address,
        Signer.state == SignerState.QUARANTINED,
    )
    with transaction(context.sessions) as session:
        rows = session.execute(
            select(Message.message_id, Message.deadline)
            .where(
                Message.status == TransactionStatus.QUEUED,
                Message.deadline <= func.clock_timestamp(),
                ~quarantined.exists(),
            )
            .where(~nonce_doubted(Message.chain_id, Message.from_address))
            .order_by(Message.seq)
            .with_for_update(skip_locked=True)
        ).all()
        for row in rows:
            detail = f"The deadline {format_time(row.deadline)} passed before it was signed."
            end(session, row.message_id, TransactionStatus.EXPIRED, Refusal("deadline_passed", detail))
        return [row.message_id for row in rows]


def _seen_again(context: RelayerContext, snapshot: ChainSnapshot, row: Queued, reverted: Refusal) -> bool:
    """Whether it reverts in a simulation at a later block too, and at another node where one answers. A node that lags, by
    a block or for good, must not end a message that the newest state would take."""
    times = seen_again(context.sessions, f"simulation:{row.message_id}", {"code": reverted.code}, snapshot.head)
    if times < STRONG_AFTER:
        return False
    for endpoint in context.endpoints.awake():
        if endpoint is not snapshot.endpoint:
            (result,) = _simulate(endpoint, [row])
            if not isinstance(result, RpcError):
                log.warning("endpoints_disagree", message_id=row.message_id, endpoint=endpoint.number)
                return False
    drop(context.sessions, [f"simulation:{row.message_id}"])
    return True


def _simulate(endpoint: Endpoint, rows: Sequence[Queued]) -> list[object]:
    """What running each would give: the node's estimate where the caller named no gas limit, else the result of a call
    with the one named; an `RpcError` where the node answered with one, or did not answer."""
    results: list[object] = [None] * len(rows)
    for gas_named, method in ((True, "eth_call"), (False, "eth_estimateGas")):
        places = [place for place, row in enumerate(rows) if row.gas_named is gas_named]
        calls = [
            call_fields(row.sender, row.to, row.data, row.value_wei, row.gas_limit if gas_named else MAX_GAS)
            for row in (rows[place] for place in places)
        ]
        found: list[object]
        try:
            found = simulate(endpoint, calls, method)
        except Unanswered as error:
            found = [RpcError(0, str(error)) for _ in calls]
        for place, result in zip(places, found, strict=True):
            results[place] = result
    return results


def _gas_limit(row: Queued, estimate: object) -> int:
    """GAS_LIMIT where it suffices; more where the node's estimate, with a margin, or the calldata itself needs it."""
    try:
        needed = with_margin(int(estimate, 16)) if isinstance(estimate, str) else 0
    except ValueError:
        needed = 0
    return min(MAX_GAS, max(row.gas_limit, least_gas(row.data), needed))


def _reverted(result: object) -> Refusal | None:
    """Why a message is refused whose simulation ran and failed; None where it did not run, or did not fail."""
    if not isinstance(result, RpcError):
        return None
    message = result.message.lower()
    if result.data or result.code == 3 or "revert" in message:
        return Refusal(SIMULATION_REVERTED, decode_revert(result.data).detail)
    if "out of gas" in message or "intrinsic gas" in message or "gas required exceeds" in message:
        return Refusal("gas_limit_too_low", "The gas limit does not suffice.")
    return None
