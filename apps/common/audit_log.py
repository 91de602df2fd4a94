"""The audit log: who of ops asked for what, when, and what that changed. Append-only, one table in each service's database.

A call writes two entries as a rule. ``attempted`` is committed before the endpoint's own code runs: where that cannot be
written, nothing is done. ``done`` is written in the very transaction that changes this database, with what the mapped rows
were before and are after; so it is there if, and only if, the change is. Where a call changes nothing here, or is refused or
fails, the entry that says so follows its answer. An ``attempted`` entry that nothing follows is a process that ended before
it could tell: nothing was changed in this database. Each call also leaves two lines `ops_call` in the service's log, so that
a copy exists where the database's owner cannot reach.
"""

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import structlog
from flask import Flask, Response, current_app, g, has_request_context, request
from sqlalchemy import Engine, Table, event, insert, inspect, literal, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import ORMExecuteState, Session

from apps.common.append_only import Proof
from apps.common.audit_changes import Changes
from apps.common.audit_entries import AuditEntryMixin
from apps.common.auth import current_caller, refuse_other_names, require_scope, scope_of
from apps.common.bodies import JsonObject
from apps.common.database import Sessions, transaction
from apps.common.errors import AppendOnlyUnproven
from apps.common.idempotency import REFUSAL
from apps.common.keys import Caller, Scope
from apps.common.logging import without_secrets

log = structlog.get_logger(__name__)

EXTENSION = "audit_log"
MAX_ASKED_BYTES = 64 * 1024
MAX_SUBJECT = 250
# A key that keeps asking for what it may not do must not fill the table: one entry for it and the endpoint in this time.
REFUSAL_SEC = 60.0

# Nothing is written where the transaction has changed nothing: PostgreSQL numbers only those that write or lock.
_HAS_CHANGED = text("pg_current_xact_id_if_assigned() IS NOT NULL")
_AUDITED = "audited"


@dataclass
class OpsCall:
    """A call of ops that is under way, in the audit log that it is written to."""

    audit_log: "AuditLog"
    entry: Mapping[str, Any]
    attempt_id: int
    changes: Changes = field(default_factory=Changes)
    written: str | None = None  # the outcome of the last entry that is committed


class AuditLog:
    """Writes one service's audit log; `entries` is its table."""

    def __init__(self, sessions: Sessions, entries: type[AuditEntryMixin]) -> None:
        self.sessions = sessions
        self.entries = entries
        self._proof = Proof(cast(Engine, sessions.kw["bind"]), {"audit_log": "who"})
        self._refused_at: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def watch(self, app: Flask) -> None:
        """Have every call of ops to an app written down. Raises `NotAppendOnly`."""
        self._proof.at_start()
        app.extensions[EXTENSION] = self

        @app.before_request
        def attempt() -> None:
            if scope_of(app, request) is Scope.OPS and request.method not in {"GET", "HEAD"}:
                self.begin()
                refuse_other_names(g.get("body") or {})

        @app.after_request
        def conclude(response: Response) -> Response:
            call: OpsCall | None = g.pop("ops_call", None)
            if call is not None:
                self._conclude(call, response)
            return response

        event.listen(self.sessions, "before_flush", _note_flush)
        event.listen(self.sessions, "do_orm_execute", _note_statement)
        event.listen(self.sessions, "before_commit", self._write_change)
        event.listen(self.sessions, "after_commit", _note_commit)
        event.listen(self.sessions, "after_rollback", _note_rollback)

    def begin(self) -> None:
        """Commit that the present call was attempted. Raises `DBAPIError` or `AppendOnlyUnproven` where it cannot be."""
        self._proof.require()
        entry = self._entry(current_caller())
        with transaction(self.sessions) as session:
            attempt_id = session.execute(
                insert(self.entries).values(**entry, outcome="attempted", asked=_asked()).returning(self.entries.id)
            ).scalar_one()
        g.ops_call = OpsCall(self, entry, attempt_id)
        log.info("ops_call", attempt_id=attempt_id, outcome="attempted", **entry)

    def refused(self, caller: Caller) -> None:
        """Note that a caller wanted what only ops may do; the refusal stands whether or not it can be written."""
        place = (caller.name, request.endpoint or "")
        now = time.monotonic()
        with self._lock:
            if now - self._refused_at.get(place, float("-inf")) < REFUSAL_SEC:
                return
            self._refused_at[place] = now
        self._write(self._entry(caller), outcome="refused", status=403, code="scope_needed")

    def _entry(self, caller: Caller | None) -> dict[str, str]:
        rule = request.url_rule.rule if request.url_rule else request.path
        return {
            "who": caller.name if caller else "nobody",
            "what": f"{request.method} {rule}",
            "subject": _subject(),
            "request_id": g.get("request_id", ""),
        }

    def _conclude(self, call: OpsCall, response: Response) -> None:
        status = response.status_code
        said = response.get_json(silent=True) if status >= 400 else None
        code = said.get("code") if isinstance(said, dict) else None
        outcome = "done" if status < 400 else "refused" if status < 500 else "failed"
        end = {"attempt_id": call.attempt_id, "outcome": outcome, "status": status, "code": code}
        log.info("ops_call", **end, **call.entry)
        if outcome != call.written:
            self._write(call.entry, **end)

    def _write(self, entry: Mapping[str, Any], **more: object) -> None:
        try:
            self._proof.require()
            with transaction(self.sessions) as session:
                session.execute(insert(self.entries).values(**entry, **more))
        except (SQLAlchemyError, AppendOnlyUnproven) as error:
            log.error("audit_entry_lost", kind=type(error).__name__, **entry, **more)

    def _write_change(self, session: Session) -> None:
        call = _call()
        if call is None or call.audit_log is not self or session.in_nested_transaction():
            return
        session.flush()
        status, code = session.info.pop(REFUSAL, (None, None))
        outcome = "done" if status is None else "refused"
        columns = {
            **call.entry,
            "attempt_id": call.attempt_id,
            "outcome": outcome,
            "status": status,
            "code": code,
            **call.changes.columns(),
        }
        table = cast(Table, inspect(self.entries).local_table)
        values = [literal(value, table.c[name].type) for name, value in columns.items()]
        found = session.connection().execute(
            insert(table).from_select(list(columns), select(*values).where(_HAS_CHANGED)).returning(table.c.id)
        )
        session.info[_AUDITED] = outcome if found.first() else None


def ops_call() -> None:
    """Treat the present request as one of ops, where that depends on more than its endpoint: its key needs their scope, and a
    named one's call is written down. Raises `ScopeNeeded`."""
    require_scope(Scope.OPS)
    caller = current_caller()
    found: AuditLog | None = current_app.extensions.get(EXTENSION)
    if caller is not None and caller.named and found is not None:
        found.begin()


def _call() -> OpsCall | None:
    return g.get("ops_call") if has_request_context() else None


def _note_flush(session: Session, _context: object, _instances: object) -> None:
    call = _call()
    if call is not None:
        call.changes.note_flush(session)


def _note_statement(state: ORMExecuteState) -> None:
    call = _call()
    if call is not None:
        call.changes.note_statement(state)


def _note_commit(session: Session) -> None:
    call = _call()
    written = session.info.pop(_AUDITED, None)
    if call is not None and written is not None:
        call.written, call.changes = written, Changes()


def _note_rollback(session: Session) -> None:
    call = _call()
    if call is not None:
        session.info.pop(_AUDITED, None)
        call.changes = Changes()


def _subject() -> str:
    """What a call is about: what its path names, else the user, batch or pool of its body or query, else the path itself."""
    named = {**(request.view_args or {})}
    for given in (g.get("body") or {}, request.args):
        for name in ("user_id", "batch_id", "pool_id"):
            if not named and isinstance(given.get(name), str):
                named = {name: given[name]}
    words = " ".join(f"{name.removesuffix('_id')}:{value}" for name, value in named.items())
    return (words or request.path).replace("\0", "")[
        :MAX_SUBJECT
    ]  # a refusal at the door comes before all else is looked at


def _asked() -> JsonObject | None:
    """The body, without what is named like a secret; only its size where it is large."""
    body = g.get("body")
    if not body:
        return None
    found: JsonObject = without_secrets(body)
    size = len(json.dumps(found))
    return found if size <= MAX_ASKED_BYTES else {"bytes": size}
