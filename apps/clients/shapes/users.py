"""What the pool takes and answers about users: who they are, what holds them back, and what they prefer. Amounts are wei."""

from dataclasses import dataclass

import marshmallow as ma

from apps.clients.shapes.common import IdPageQuery, UserPageQuery, one_of
from apps.clients.shapes.pool_states import RequestKind
from apps.common import wire
from apps.common.shapes import StrictBoolean, Time, Wei, given

# What a hold may keep a user from: every kind of request, those of later releases too, or kinds by name.
ALL = "all"
ACTIONS = (ALL, *(kind.value for kind in RequestKind))

_PERSON = ma.validate.Length(1, 128)
_TEXT = ma.validate.Length(1, 1000)


@dataclass(frozen=True, kw_only=True)
class NewHold:
    """What a user is kept from (everything, where no action is named), who says so, and why."""

    message_id: str = given(wire.message_id_field)
    pool_id: str | None = given(wire.pool_id_field, load_default=None, allow_none=True)
    actions: list[str] | None = given(
        ma.fields.List,
        cls_or_instance=ma.fields.String(validate=one_of(ACTIONS)),
        load_default=None,
        allow_none=True,
        validate=ma.validate.Length(1, len(ACTIONS)),
    )
    by: str = given(ma.fields.String, required=True, validate=_PERSON)
    why: str = given(ma.fields.String, required=True, validate=_TEXT)


@dataclass(frozen=True, kw_only=True)
class HoldRelease:
    """Who ends a hold, and why."""

    by: str = given(ma.fields.String, required=True, validate=_PERSON)
    why: str = given(ma.fields.String, required=True, validate=_TEXT)


@dataclass(frozen=True, kw_only=True)
class UserHold:
    """A hold: from when, by whom and why a user is kept from which actions. What released it is null while it stands."""

    id: str
    message_id: str
    pool_id: str
    user_id: str
    actions: list[str]
    by: str
    why: str
    created_at: Time
    released_by: str | None
    released_why: str | None
    released_at: Time | None


@dataclass(frozen=True)
class UserHoldPage:
    """Newest first; `next` is the cursor of the next page."""

    items: list[UserHold]
    next: str | None


@dataclass(frozen=True, kw_only=True)
class HoldsQuery(IdPageQuery):
    """Which holds to list: of a user, and only those that stand."""

    pool_id: str | None = given(wire.pool_id_field, load_default=None)
    user_id: str | None = given(wire.user_id_field, load_default=None)
    standing: bool = given(ma.fields.Boolean, load_default=False)


@dataclass(frozen=True, kw_only=True)
class NewPreferences:
    """What a user prefers, all of it."""

    pool_id: str | None = given(wire.pool_id_field, load_default=None, allow_none=True)
    auto_claim_rewards: bool = given(StrictBoolean, required=True)


@dataclass(frozen=True)
class Preferences:
    """What a user prefers. `next_auto_claim_at` is null where rewards are not claimed by themselves; `updated_at` where
    nothing was ever said."""

    pool_id: str
    user_id: str
    auto_claim_rewards: bool
    next_auto_claim_at: Time | None
    updated_at: Time | None


@dataclass(frozen=True)
class User:
    """A user of the pool: what the ledger holds of them, and what they are kept from now."""

    pool_id: str
    user_id: str
    available_wei: Wei
    reserved_wei: Wei
    staked_wei: Wei
    unstaking_wei: Wei
    on_hold: list[str]


@dataclass(frozen=True)
class UserPage:
    """In the order of user_id; `next` is the cursor of the next page."""

    items: list[User]
    next: str | None


@dataclass(frozen=True, kw_only=True)
class UsersQuery(UserPageQuery):
    """Which users to list: those whose id begins with a text, or all."""

    pool_id: str | None = given(wire.pool_id_field, load_default=None)
    prefix: str | None = given(wire.user_id_field, load_default=None)
