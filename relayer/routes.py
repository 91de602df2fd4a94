"""HTTP face of the relayer: parse and answer, nothing else."""

from typing import Any

from flask import Response, current_app, jsonify
from flask_smorest import Blueprint

from apps.common.idempotency import REPLAY_HEADER
from relayer import schemas
from relayer.service import RelayerService

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


@blueprint.post("/transactions/<message_id>/cancel")
@blueprint.response(200, schemas.TransactionSchema)
def cancel_transaction(message_id: str) -> Response:
    """Take back a message that is not signed yet."""
    return jsonify(_service().cancel(message_id))


@blueprint.post("/transactions/<message_id>/speed-up")
@blueprint.response(200, schemas.TransactionSchema)
def speed_up_transaction(message_id: str) -> Response:
    """Not supported: answers 409 `not_supported`."""
    return jsonify(_service().speed_up(message_id))


@blueprint.get("/signers")
@blueprint.response(200, schemas.SignersSchema)
def list_signers() -> Response:
    """The addresses whose keys are held here; never a key."""
    return jsonify(_service().signers())


def _service() -> RelayerService:
    service: RelayerService = current_app.extensions["service"]
    return service
