"""HTTP face of the relayer: parse and answer, nothing else."""

from typing import TypeVar

from flask import current_app

from apps.clients.shapes.relayer import (
    EventPage,
    Explanation,
    Limits,
    NewTransaction,
    PartsQuery,
    SendPage,
    Signer,
    Signers,
    Transaction,
    TransactionPage,
    TransactionsQuery,
    WaitQuery,
)
from apps.common.api import Blueprint
from apps.common.idempotency import REPLAY_HEADER
from apps.common.shapes import schema_of
from apps.common.wire import BodySchema, QuerySchema
from apps.ethereum.endpoints import ChainUnavailable, NodeLacks, NodeRateLimited
from relayer.api.errors import (
    AlreadyFinal,
    BeingReplaced,
    NonceUserUnknown,
    NotQuarantined,
    NotSigned,
    ReleaseUnfinished,
    SignerDoubted,
    SignerNotAtRest,
    SignerNotFound,
    SignerQuarantined,
    TransactionNotFound,
)
from relayer.api.reads import RelayerReads
from relayer.api.service import RelayerService
from relayer.store.states import SignerState

blueprint = Blueprint("relayer", __name__, url_prefix="/v1", description="Signed transactions and their fate.")

CHAIN = (ChainUnavailable, NodeRateLimited, NodeLacks)
SIGNER = (SignerNotFound, SignerQuarantined, *CHAIN)

_Shape = TypeVar("_Shape")
# Flask reads it as the answer, its status and its headers.
Answer = tuple[_Shape, int, dict[str, str]]
_TransactionSchema = schema_of(Transaction)


@blueprint.post("/transactions")
@blueprint.arguments(schema_of(NewTransaction, BodySchema))
@blueprint.response(202, _TransactionSchema)
@blueprint.alt_response(200, schema=_TransactionSchema, description="A replay: the message as it stands now.")
def create_transaction(new: NewTransaction) -> Answer[Transaction]:
    """Accept a message to be signed and sent, once per message_id."""
    message, replayed = _service().accept(new)
    return (message, 200, {REPLAY_HEADER: "true"}) if replayed else (message, 202, {})


@blueprint.get("/transactions")
@blueprint.arguments(schema_of(TransactionsQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(TransactionPage))
def list_transactions(query: TransactionsQuery) -> TransactionPage:
    """Messages in the order of acceptance, by status or by block."""
    return _reads().messages(query)


@blueprint.get("/transactions/<message_id>")
@blueprint.refuses(TransactionNotFound)
@blueprint.arguments(schema_of(WaitQuery, QuerySchema), location="query")
@blueprint.response(200, _TransactionSchema)
def get_transaction(query: WaitQuery, message_id: str) -> Transaction:
    """A message; with `wait`, once its status changes."""
    return _reads().message(message_id, query.wait)


@blueprint.get("/transactions/<message_id>/events")
@blueprint.refuses(TransactionNotFound)
@blueprint.arguments(schema_of(PartsQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(EventPage))
def list_transaction_events(query: PartsQuery, message_id: str) -> EventPage:
    """The append-only, hash-chained history of a message."""
    return _reads().events(message_id, query)


@blueprint.get("/transactions/<message_id>/sends")
@blueprint.refuses(TransactionNotFound)
@blueprint.arguments(schema_of(PartsQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(SendPage))
def list_transaction_sends(query: PartsQuery, message_id: str) -> SendPage:
    """Each time a message's bytes were given to a node, and what it said; null where nothing came back yet."""
    return _reads().sends(message_id, query)


@blueprint.get("/transactions/<message_id>/explain")
@blueprint.refuses(TransactionNotFound)
@blueprint.response(200, schema_of(Explanation))
def explain_transaction(message_id: str) -> Explanation:
    """Why a message is not mined yet, or how it ended."""
    return _reads().explanation(message_id)


@blueprint.post("/transactions/<message_id>/cancel")
@blueprint.ops
@blueprint.refuses(TransactionNotFound, AlreadyFinal, SignerDoubted, SignerQuarantined)
@blueprint.response(200, _TransactionSchema)
@blueprint.alt_response(202, schema=_TransactionSchema, description="Undecided: an empty transaction races it.")
def cancel_transaction(message_id: str) -> Answer[Transaction]:
    """Take a message back: at once while it is queued, else by an empty transaction of the same nonce."""
    message, decided = _service().cancel(message_id)
    return message, 200 if decided else 202, {}


@blueprint.post("/transactions/<message_id>/speed-up")
@blueprint.ops
@blueprint.refuses(TransactionNotFound, AlreadyFinal, BeingReplaced, NotSigned)
@blueprint.response(202, _TransactionSchema)
def speed_up_transaction(message_id: str) -> Transaction:
    """Have the price of a signed message raised now, within the caps."""
    return _service().speed_up(message_id)


@blueprint.get("/limits")
@blueprint.response(200, schema_of(Limits))
def get_limits() -> Limits:
    """The caps that every message will be held against, and what is left of the day's."""
    return _reads().limits()


@blueprint.get("/signers")
@blueprint.refuses(*CHAIN)
@blueprint.response(200, schema_of(Signers))
def list_signers() -> Signers:
    """The addresses whose keys are held here; never a key."""
    return _reads().signers()


@blueprint.post("/signers/<address>/pause")
@blueprint.ops
@blueprint.refuses(*SIGNER)
@blueprint.response(200, schema_of(Signer))
def pause_signer(address: str) -> Signer:
    """Neither sign nor send with this key; what nodes hold already may still be mined."""
    return _service().set_signer_state(address, SignerState.PAUSED)


@blueprint.post("/signers/<address>/drain")
@blueprint.ops
@blueprint.refuses(*SIGNER)
@blueprint.response(200, schema_of(Signer))
def drain_signer(address: str) -> Signer:
    """Bring what has a nonce to its end, and begin nothing new with this key."""
    return _service().set_signer_state(address, SignerState.DRAINING)


@blueprint.post("/signers/<address>/resume")
@blueprint.ops
@blueprint.refuses(*SIGNER)
@blueprint.response(200, schema_of(Signer))
def resume_signer(address: str) -> Signer:
    """Sign and send again; a quarantined key must be released first."""
    return _service().set_signer_state(address, SignerState.ACTIVE)


@blueprint.post("/signers/<address>/release")
@blueprint.ops
@blueprint.refuses(SignerNotFound, NonceUserUnknown, NotQuarantined, ReleaseUnfinished, SignerNotAtRest, *CHAIN)
@blueprint.response(200, schema_of(Signer))
def release_signer(address: str) -> Signer:
    """Lift a quarantine: record what else used the key, as the chain tells it, and leave the key paused."""
    return _service().release_signer(address)


def _service() -> RelayerService:
    service: RelayerService = current_app.extensions["service"]
    return service


def _reads() -> RelayerReads:
    return _service().reads
