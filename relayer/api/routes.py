"""HTTP face of the relayer: parse and answer, nothing else."""

from typing import Any

from flask import Response, current_app, jsonify

from apps.common.api import Blueprint
from apps.common.idempotency import REPLAY_HEADER
from relayer.api import schemas
from relayer.api.explain import explain
from relayer.api.operations import RelayerOperations
from relayer.api.service import RelayerService

blueprint = Blueprint("relayer", __name__, url_prefix="/v1", description="Signed transactions and their fate.")


@blueprint.post("/transactions")
@blueprint.arguments(schemas.NewTransactionSchema)
@blueprint.response(202, schemas.TransactionSchema)
@blueprint.alt_response(200, schema=schemas.TransactionSchema, description="A replay: the message as it stands now.")
def post_transaction(body: dict[str, Any]) -> Response:
    """Accept a message to be signed and sent, once per message_id."""
    message, replayed = _service().accept(body)
    response = jsonify(message)
    response.status_code = 200 if replayed else 202
    if replayed:
        response.headers[REPLAY_HEADER] = "true"
    return response


@blueprint.get("/transactions")
@blueprint.arguments(schemas.ListQuerySchema, location="query")
@blueprint.response(200, schemas.TransactionPageSchema)
def list_transactions(query: dict[str, Any]) -> Response:
    """Messages in the order of acceptance, by status or by block."""
    return jsonify(_service().listing(**query))


@blueprint.get("/transactions/<message_id>")
@blueprint.arguments(schemas.WaitQuerySchema, location="query")
@blueprint.response(200, schemas.TransactionSchema)
def get_transaction(query: dict[str, Any], message_id: str) -> Response:
    """A message; with `wait`, once its status changes."""
    return jsonify(_service().read(message_id, query["wait"]))


@blueprint.get("/transactions/<message_id>/events")
@blueprint.arguments(schemas.EventQuerySchema, location="query")
@blueprint.response(200, schemas.EventPageSchema)
def list_events(query: dict[str, Any], message_id: str) -> Response:
    """The append-only, hash-chained history of a message."""
    return jsonify(_service().events(message_id, **query))


@blueprint.get("/transactions/<message_id>/sends")
@blueprint.arguments(schemas.SendQuerySchema, location="query")
@blueprint.response(200, schemas.SendPageSchema)
def list_sends(query: dict[str, Any], message_id: str) -> Response:
    """Each time a message's bytes were given to a node, and what it said; null where nothing came back yet."""
    return jsonify(_service().sends(message_id, **query))


@blueprint.get("/transactions/<message_id>/explain")
@blueprint.response(200, schemas.ExplanationSchema)
def explain_transaction(message_id: str) -> Response:
    """Why a message is not mined yet, or how it ended."""
    return jsonify(explain(_service().context, message_id))


@blueprint.post("/transactions/<message_id>/cancel")
@blueprint.response(200, schemas.TransactionSchema)
@blueprint.alt_response(202, schema=schemas.TransactionSchema, description="Undecided: an empty transaction races it.")
def cancel_transaction(message_id: str) -> Response:
    """Take a message back: at once while it is queued, else by an empty transaction of the same nonce."""
    message, decided = _operations().cancel(message_id)
    response = jsonify(message)
    response.status_code = 200 if decided else 202
    return response


@blueprint.post("/transactions/<message_id>/speed-up")
@blueprint.response(202, schemas.TransactionSchema)
def speed_up_transaction(message_id: str) -> Response:
    """Have the price of a signed message raised now, within the caps."""
    response = jsonify(_operations().speed_up(message_id))
    response.status_code = 202
    return response


@blueprint.get("/limits")
@blueprint.response(200, schemas.LimitsSchema)
def get_limits() -> Response:
    """The caps that every message will be held against, and what is left of the day's."""
    return jsonify(_operations().limits())


@blueprint.get("/signers")
@blueprint.response(200, schemas.SignersSchema)
def list_signers() -> Response:
    """The addresses whose keys are held here; never a key."""
    return jsonify(_operations().signers())


@blueprint.post("/signers/<address>/pause")
@blueprint.response(200, schemas.SignerSchema)
def pause_signer(address: str) -> Response:
    """Neither sign nor send with this key; what nodes hold already may still be mined."""
    return jsonify(_operations().set_signer_state(address, "paused"))


@blueprint.post("/signers/<address>/drain")
@blueprint.response(200, schemas.SignerSchema)
def drain_signer(address: str) -> Response:
    """Bring what has a nonce to its end, and begin nothing new with this key."""
    return jsonify(_operations().set_signer_state(address, "draining"))


@blueprint.post("/signers/<address>/resume")
@blueprint.response(200, schemas.SignerSchema)
def resume_signer(address: str) -> Response:
    """Sign and send again; a quarantined key must be released first."""
    return jsonify(_operations().set_signer_state(address, "active"))


@blueprint.post("/signers/<address>/release")
@blueprint.response(200, schemas.SignerSchema)
def release_signer(address: str) -> Response:
    """Lift a quarantine: record what else used the key, as the chain tells it, and leave the key paused."""
    return jsonify(_operations().release_signer(address))


def _service() -> RelayerService:
    service: RelayerService = current_app.extensions["service"]
    return service


def _operations() -> RelayerOperations:
    operations: RelayerOperations = current_app.extensions["operations"]
    return operations
