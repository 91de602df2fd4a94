"""Protocols: Lido calldata, chain reads, reconciliation."""

from flask import Flask

from apps.clients.ledger import LedgerClient
from apps.common.database import make_engine, make_sessions
from apps.common.service_app import build_app
from apps.protocols.accounts import Accounts
from apps.protocols.addresses import AddressCheck
from apps.protocols.builders import Builders
from apps.protocols.chain import Chain
from apps.protocols.deposits import DepositReads
from apps.protocols.history import History
from apps.protocols.models import AuditEntry
from apps.protocols.reads import ProtocolsReads
from apps.protocols.routes import blueprint
from apps.protocols.service import ProtocolsService
from apps.protocols.settings import ProtocolsSettings, load_settings


def create_app(settings: ProtocolsSettings | None = None) -> Flask:
    """Build the service; without `settings` they are read from the environment. Nothing is asked of the chain yet."""
    settings = settings or load_settings()
    sessions = make_sessions(make_engine(settings.database_url))
    ledger = LedgerClient(settings.ledger_url, settings.internal_keys[0], settings.http_timeout_sec)
    chain = Chain(settings)
    history = History(chain, sessions)
    addresses = AddressCheck(chain)
    app = build_app(
        "protocols",
        blueprints=[blueprint],
        sessions=sessions,
        accepted_keys=settings.internal_keys,
        keys_file=settings.api_keys_file,
        audit_entries=AuditEntry,
        checks={"chain": addresses.status, "history": history.doubts},
    )
    app.extensions["addresses"] = addresses
    app.extensions["builders"] = Builders(chain)
    app.extensions["accounts"] = Accounts(chain)
    app.extensions["deposits"] = DepositReads(chain, sessions, ledger, settings.pool_id)
    app.extensions["reads"] = ProtocolsReads(chain, history, sessions)
    app.extensions["service"] = ProtocolsService(chain, history, sessions, ledger, settings.pool_id)
    return app
