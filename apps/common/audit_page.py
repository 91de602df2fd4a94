"""``GET /v1/audit-log``: the one endpoint that every service has alike."""

from dataclasses import dataclass

import marshmallow as ma
from flask import current_app
from sqlalchemy import select

from apps.common.api import Blueprint
from apps.common.audit_entries import AuditEntryMixin
from apps.common.audit_log import EXTENSION, MAX_SUBJECT, AuditLog
from apps.common.bodies import JsonObject
from apps.common.database import transaction
from apps.common.shapes import Time, Whole, described, given, schema_of
from apps.common.wire import DEFAULT_LIMIT, NUMBER, QuerySchema, cursor_field, cut, integer_cursor, limit_field


@dataclass(frozen=True)
class AuditLogQuery:
    """Which entries."""

    subject: str | None = given(ma.fields.String, load_default=None, validate=ma.validate.Length(1, MAX_SUBJECT))
    who: str | None = given(ma.fields.String, load_default=None, validate=ma.validate.Length(1, MAX_SUBJECT))
    after: str | None = given(cursor_field, regex=NUMBER, load_default=None)
    limit: int = given(limit_field, load_default=DEFAULT_LIMIT)


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """What one of ops asked for, or what came of it."""

    id: Whole
    attempt_id: Whole | None = described("The entry of the attempt that this one tells the end of.")
    created_at: Time
    who: str = described("The name of the key; that of the setting where it is a shared one.")
    what: str = described("The endpoint.")
    subject: str = described("What it was about, as request:<id>.")
    request_id: str = described("The X-Request-Id of the call.")
    outcome: str = described("What came of it.", enum=["attempted", "done", "refused", "failed"])
    status: Whole | None = described("Of the answer; null where the entry was written before it.")
    code: str | None = described("Of the problem document, where the answer was one.")
    asked: JsonObject | None = described("The body, secrets blotted out.")
    before: JsonObject | None = described("The fields that changed in this database, by table and key, as they were.")
    after: JsonObject | None = described("The same fields as they are since.")


@dataclass(frozen=True)
class AuditLogPage:
    """Entries, newest first."""

    items: list[AuditEntry]
    next: str | None


blueprint = Blueprint("audit log", __name__, url_prefix="/v1", description="Who of ops did what.")


@blueprint.get("/audit-log")
@blueprint.ops
@blueprint.arguments(schema_of(AuditLogQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(AuditLogPage))
def list_audit_log(query: AuditLogQuery) -> AuditLogPage:
    """Ops: every call that ops made here, what it changed, and what was refused; newest first."""
    audit_log: AuditLog = current_app.extensions[EXTENSION]
    entries = audit_log.entries
    wanted = select(entries).order_by(entries.id.desc()).limit(query.limit + 1)
    if query.subject is not None:
        wanted = wanted.where(entries.subject == query.subject)
    if query.who is not None:
        wanted = wanted.where(entries.who == query.who)
    if query.after is not None:
        wanted = wanted.where(entries.id < integer_cursor(query.after))
    with transaction(audit_log.sessions) as session:
        rows = [_shown(row) for row in session.scalars(wanted)]
    return AuditLogPage(*cut(rows, query.limit, lambda entry: str(entry.id)))


def _shown(row: AuditEntryMixin) -> AuditEntry:
    return AuditEntry(**{name: getattr(row, name) for name in AuditEntry.__dataclass_fields__})
