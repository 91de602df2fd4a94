"""HTTP face of what the pool knows of users: parse and answer, nothing else."""

from flask import current_app

from apps.clients.base import CallFailed
from apps.clients.shapes import users as shapes
from apps.clients.shapes.common import PoolQuery
from apps.common.api import Blueprint
from apps.common.idempotency import REPLAY_HEADER
from apps.common.shapes import schema_of
from apps.common.wire import BodySchema, QuerySchema, check_user_id
from apps.pool.errors import HoldReleased
from apps.pool.users.holds import Holds
from apps.pool.users.preferences import Users

blueprint = Blueprint("users", __name__, url_prefix="/v1", description="Users: holds, preferences, search.")


@blueprint.get("/users")
@blueprint.refuses(CallFailed)
@blueprint.arguments(schema_of(shapes.UsersQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(shapes.UserPage))
def list_users(query: shapes.UsersQuery) -> shapes.UserPage:
    """Users in the order of their ids, all or those whose id begins with a text."""
    return _users().list(query)


@blueprint.get("/users/<user_id>/preferences")
@blueprint.arguments(schema_of(PoolQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(shapes.Preferences))
def get_preferences(query: PoolQuery, user_id: str) -> shapes.Preferences:
    """What a user prefers."""
    return _users().preferences(check_user_id(user_id), query.pool_id)


@blueprint.put("/users/<user_id>/preferences")
@blueprint.arguments(schema_of(shapes.NewPreferences, BodySchema))
@blueprint.response(200, schema_of(shapes.Preferences))
def put_preferences(body: shapes.NewPreferences, user_id: str) -> shapes.Preferences:
    """Say what a user prefers, such as rewards that are claimed by themselves. The same again changes nothing."""
    return _users().prefer(check_user_id(user_id), body)


@blueprint.post("/users/<user_id>/holds")
@blueprint.ops
@blueprint.arguments(schema_of(shapes.NewHold, BodySchema))
@blueprint.response(201, schema_of(shapes.UserHold))
@blueprint.alt_response(200, schema=schema_of(shapes.UserHold), description="A replay.")
def place_hold(body: shapes.NewHold, user_id: str) -> tuple[shapes.UserHold, int, dict[str, str]]:
    """Ops: keep a user from actions, or from all. New requests are refused; what is queued waits."""
    made, replayed = _holds().place(check_user_id(user_id), body)
    return (made, 200, {REPLAY_HEADER: "true"}) if replayed else (made, 201, {})


@blueprint.get("/holds")
@blueprint.arguments(schema_of(shapes.HoldsQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(shapes.UserHoldPage))
def list_holds(query: shapes.HoldsQuery) -> shapes.UserHoldPage:
    """Holds, newest first: of all users or of one, those that stand or all that ever were."""
    return _holds().list(query)


@blueprint.post("/holds/<hold_id>/release")
@blueprint.ops
@blueprint.refuses(HoldReleased)
@blueprint.arguments(schema_of(shapes.HoldRelease, BodySchema))
@blueprint.response(200, schema_of(shapes.UserHold))
def release_hold(body: shapes.HoldRelease, hold_id: str) -> shapes.UserHold:
    """Ops: end a hold; what waited for it goes on."""
    return _holds().release(hold_id, body)


def _users() -> Users:
    found: Users = current_app.extensions["users"]
    return found


def _holds() -> Holds:
    found: Holds = current_app.extensions["holds"]
    return found
