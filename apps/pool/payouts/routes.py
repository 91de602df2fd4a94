"""HTTP face of payouts and deposits: parse and answer, nothing else."""

from flask import current_app

from apps.clients.base import CallFailed
from apps.clients.shapes import payouts as shapes
from apps.clients.shapes.pool import Request
from apps.clients.shapes.walk import Decision, NewRelease, Resolution
from apps.common.api import Blueprint
from apps.common.errors import NotConfigured
from apps.common.idempotency import REPLAY_HEADER
from apps.common.shapes import schema_of
from apps.common.wire import BodySchema, QuerySchema, check_user_id
from apps.pool.errors import (
    AddressAllowedAlready,
    AddressNotAllowed,
    AddressNotUsableYet,
    DepositNotFinal,
    DepositPosted,
    InsufficientBalance,
    NotADeposit,
    NotApproving,
    PayoutHouseLimit,
    PayoutNotMatching,
    PayoutTargetRefused,
    PayoutUserLimit,
    SecondPersonNeeded,
)
from apps.pool.routes import LOCATION, NEW, created, effect_name, said
from apps.pool.service import PoolService

blueprint = Blueprint("payouts", __name__, url_prefix="/v1", description="Payouts, where they may go, and deposits.")


@blueprint.post("/payouts")
@blueprint.refuses(*NEW, AddressNotAllowed, AddressNotUsableYet, InsufficientBalance, PayoutHouseLimit, PayoutUserLimit)
@blueprint.arguments(schema_of(shapes.NewPayout, BodySchema))
@blueprint.response(201, schema_of(Request), headers=LOCATION)
@blueprint.alt_response(200, schema=schema_of(Request), description="A replay.", headers=LOCATION)
def create_payout(body: shapes.NewPayout) -> tuple[Request, int, dict[str, str]]:
    """Send a user's available ETH to an address of their list: sets it aside now, and is paid once the chain has confirmed it.

    Above PAYOUT_FOUR_EYES_WEI it waits for a second person."""
    return created(*_service().payouts.create(effect_name(body.message_id), body))


@blueprint.post("/payouts/<request_id>/approve")
@blueprint.ops
@blueprint.refuses(NotApproving, SecondPersonNeeded)
@blueprint.arguments(schema_of(Decision, BodySchema))
@blueprint.response(200, schema_of(Request))
def approve_payout(body: Decision, request_id: str) -> Request:
    """Ops: the second person agrees with a payout that waits for one."""
    return _service().payouts.approve(request_id, body.by)


@blueprint.post("/payouts/<request_id>/reject")
@blueprint.ops
@blueprint.refuses(NotApproving)
@blueprint.arguments(schema_of(Decision, BodySchema))
@blueprint.response(200, schema_of(Request))
def reject_payout(body: Decision, request_id: str) -> Request:
    """Ops: a payout that waits for a second person is not to be made; its ETH is given back."""
    return _service().payouts.reject(request_id, body.by)


@blueprint.post("/payouts/<request_id>/release")
@blueprint.ops
@blueprint.refuses(CallFailed, PayoutNotMatching)
@blueprint.arguments(schema_of(NewRelease, BodySchema))
@blueprint.response(201, schema_of(Resolution))
@blueprint.alt_response(200, schema=schema_of(Resolution), description="A replay.")
def release_payout(body: NewRelease, request_id: str) -> tuple[Resolution, int, dict[str, str]]:
    """Ops: a parked payout did nothing on chain and never will; its ETH is given back."""
    return said(*_service().payout_resolutions.release(request_id, body))


@blueprint.post("/payouts/<request_id>/paid")
@blueprint.ops
@blueprint.refuses(CallFailed, PayoutNotMatching)
@blueprint.arguments(schema_of(shapes.NewPaid, BodySchema))
@blueprint.response(201, schema_of(Resolution))
@blueprint.alt_response(200, schema=schema_of(Resolution), description="A replay.")
def confirm_payout(body: shapes.NewPaid, request_id: str) -> tuple[Resolution, int, dict[str, str]]:
    """Ops: another transaction of the house has paid a parked payout; it is booked with that one."""
    return said(*_service().payout_resolutions.confirm(request_id, body))


@blueprint.post("/users/<user_id>/payout-addresses")
@blueprint.refuses(AddressAllowedAlready, CallFailed, PayoutTargetRefused)
@blueprint.arguments(schema_of(shapes.NewPayoutAddress, BodySchema))
@blueprint.response(201, schema_of(shapes.PayoutAddress))
@blueprint.alt_response(200, schema=schema_of(shapes.PayoutAddress), description="A replay.")
def add_payout_address(body: shapes.NewPayoutAddress, user_id: str) -> tuple[shapes.PayoutAddress, int, dict[str, str]]:
    """Allow a user to be paid at an address, after PAYOUT_ADDRESS_DELAY_SEC."""
    made, replayed = _service().payout_addresses.add(check_user_id(user_id), body)
    return (made, 200, {REPLAY_HEADER: "true"}) if replayed else (made, 201, {})


@blueprint.get("/users/<user_id>/payout-addresses")
@blueprint.arguments(schema_of(shapes.PayoutAddressesQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(shapes.PayoutAddressPage))
def list_payout_addresses(query: shapes.PayoutAddressesQuery, user_id: str) -> shapes.PayoutAddressPage:
    """A user's payout addresses, newest first, removed ones too."""
    return _service().payout_addresses.page(check_user_id(user_id), query)


@blueprint.post("/users/<user_id>/payout-addresses/<address_id>/remove")
@blueprint.response(200, schema_of(shapes.PayoutAddress))
def remove_payout_address(user_id: str, address_id: str) -> shapes.PayoutAddress:
    """Take an address off a user's list at once; added again, it waits anew."""
    return _service().payout_addresses.remove(check_user_id(user_id), address_id)


@blueprint.post("/deposits")
@blueprint.refuses(*NEW, CallFailed, DepositNotFinal, DepositPosted, NotADeposit, NotConfigured)
@blueprint.arguments(schema_of(shapes.NewDeposit, BodySchema))
@blueprint.response(201, schema_of(Request), headers=LOCATION)
@blueprint.alt_response(200, schema=schema_of(Request), description="A replay.", headers=LOCATION)
def create_deposit(body: shapes.NewDeposit) -> tuple[Request, int, dict[str, str]]:
    """Book what a transaction brought to custody for a user, once; the amount is the chain's."""
    return created(*_service().deposits.create(effect_name(body.message_id), body))


@blueprint.get("/deposits/unidentified")
@blueprint.refuses(CallFailed)
@blueprint.arguments(schema_of(shapes.UnidentifiedQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(shapes.UnidentifiedDeposits))
def list_unidentified(query: shapes.UnidentifiedQuery) -> shapes.UnidentifiedDeposits:
    """What arrived in custody and nobody has posted, oldest first, and what of the surplus no transaction explains."""
    return _service().deposits.unidentified(query)


def _service() -> PoolService:
    service: PoolService = current_app.extensions["service"]
    return service
