"""HTTP face of protocols: parse and answer, nothing else."""

import re
from typing import Any

from flask import Response, current_app, jsonify, request

from apps.common.api import Blueprint
from apps.common.errors import InvalidInput
from apps.common.wire import IdPageSchema
from apps.protocols import builders, schemas
from apps.protocols.history import parse_cursor
from apps.protocols.service import ProtocolsService

blueprint = Blueprint("protocols", __name__, url_prefix="/v1", description="Lido: calldata, reads, reconciliation.")


@blueprint.before_request
def require_right_addresses() -> None:
    """Whatever reads or builds for Lido waits until the addresses set are known to be one protocol's."""
    if request.path.startswith("/v1/lido/") or request.method == "POST":
        _service().addresses.require()


@blueprint.post("/lido/transactions/submit")
@blueprint.arguments(schemas.AmountSchema)
@blueprint.response(200)
def build_submit(body: dict[str, Any]) -> Response:
    """An unsigned submit, checked against the stake limit and the switches."""
    return jsonify(builders.build_submit(_service().chain, body["amount_wei"]))


@blueprint.post("/lido/transactions/approve")
@blueprint.arguments(schemas.AmountSchema)
@blueprint.response(200)
def build_approve(body: dict[str, Any]) -> Response:
    """An unsigned approval of the withdrawal queue."""
    return jsonify(builders.build_approve(_service().chain, body["amount_wei"]))


@blueprint.post("/lido/transactions/request-withdrawals")
@blueprint.arguments(schemas.RequestWithdrawalsSchema)
@blueprint.response(200)
def build_request(body: dict[str, Any]) -> Response:
    """An unsigned request of withdrawals, split at 1000 stETH; `elements` in on-chain order."""
    return jsonify(builders.build_request(_service().chain, body["items"]))


@blueprint.post("/lido/transactions/claim")
@blueprint.arguments(schemas.ClaimSchema)
@blueprint.response(200)
def build_claim(body: dict[str, Any]) -> Response:
    """An unsigned claim to custody, ids sorted, hints found."""
    return jsonify(builders.build_claim(_service().chain, body["withdrawal_ids"]))


@blueprint.get("/lido/state")
@blueprint.arguments(schemas.StateQuerySchema, location="query")
@blueprint.response(200)
def get_state(query: dict[str, Any]) -> Response:
    """The protocol at one block, the latest where none is named."""
    return jsonify(_service().state(query["block"]))


@blueprint.get("/lido/blocks/<number>")
@blueprint.response(200)
def get_block(number: str) -> Response:
    """A block's hash and time, from its header alone: a node tells them of any block, however little state it keeps."""
    if not re.fullmatch(r"[0-9]{1,15}", number, re.ASCII):
        raise InvalidInput(errors={"number": ["Must be the number of a block."]})
    return jsonify(_service().block(int(number)))


@blueprint.get("/lido/history")
@blueprint.arguments(schemas.HistoryQuerySchema, location="query")
@blueprint.response(200)
def list_history(query: dict[str, Any]) -> Response:
    """The operator's share history in chain order up to the money horizon."""
    return jsonify(_service().history.page(parse_cursor(query["after"]), query["limit"]))


@blueprint.post("/lido/rescan")
@blueprint.arguments(schemas.RescanSchema)
@blueprint.response(201)
def post_rescan(body: dict[str, Any]) -> Response:
    """Ops: read a part of the history again, prove it, and mend what is stored of it; the answer lists what changed."""
    return _service().rescan(body).response()


@blueprint.post("/lido/share-differences")
@blueprint.arguments(schemas.ShareDifferenceSchema)
@blueprint.response(201)
def post_share_difference(body: dict[str, Any]) -> Response:
    """Ops: shares of the operator came or went in a block without a log; the history goes on past it."""
    return _service().accept_difference(body).response()


@blueprint.get("/lido/rescans")
@blueprint.arguments(IdPageSchema, location="query")
@blueprint.response(200)
def list_rescans(query: dict[str, Any]) -> Response:
    """What was rescanned, newest first."""
    return jsonify(_service().rescans(query["limit"], query["after"]))


@blueprint.get("/lido/rebases")
@blueprint.arguments(schemas.RebasesQuerySchema, location="query")
@blueprint.response(200)
def list_rebases(query: dict[str, Any]) -> Response:
    """Rebases after a block, with the operator's reward of each."""
    return jsonify(_service().rebases(query["after_block"], query["after"], query["limit"]))


@blueprint.get("/lido/receipts/<tx_hash>")
@blueprint.response(200)
def get_receipt(tx_hash: str) -> Response:
    """What Lido's logs in one transaction say."""
    if not re.fullmatch(r"0x[0-9a-fA-F]{64}", tx_hash):
        raise InvalidInput(errors={"tx_hash": ["Must be 0x and 64 hex digits."]})
    return jsonify(_service().receipt(tx_hash.lower()))


@blueprint.post("/lido/withdrawals/status")
@blueprint.arguments(schemas.IdsSchema)
@blueprint.response(200)
def list_withdrawal_statuses(body: dict[str, Any]) -> Response:
    """Status of up to 1,000 withdrawals."""
    return jsonify({"items": _service().statuses(body["ids"])})


@blueprint.get("/lido/apr")
@blueprint.response(200)
def get_apr() -> Response:
    """The users' yearly rate: of the last rebase, and over seven days."""
    return jsonify(_service().apr())


@blueprint.post("/reconciliations")
@blueprint.arguments(schemas.ReconciliationSchema)
@blueprint.response(201)
def post_reconciliation(body: dict[str, Any]) -> Response:
    """Compare books and chain at one block, and keep the result."""
    return _service().reconcile(**body).response()


@blueprint.get("/reconciliations")
@blueprint.arguments(schemas.ReconciliationsQuerySchema, location="query")
@blueprint.response(200)
def list_reconciliations(query: dict[str, Any]) -> Response:
    """Reconciliations, newest first."""
    return jsonify(_service().reconciliations(**query))


def _service() -> ProtocolsService:
    service: ProtocolsService = current_app.extensions["service"]
    return service
