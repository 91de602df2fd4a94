"""The OpenAPI documents of the five services as they publish them, for `docs/api`: no server runs for it."""

import importlib
import os
from unittest import mock

from flask import Flask

from apps.common.logging import configure_logging

SERVICES = ("ledger", "protocols", "rewards", "pool", "relayer")

# What the services cannot be made without. The database's is a socket file that is not there: making an app asks no server,
# and must not reach one by accident.
_SETTINGS = {
    "APP_ENV": "test",
    "LOG_LEVEL": "CRITICAL",
    "DATABASE_URL": "postgresql://staking@/none?host=/nonexistent",
    "DB_HOST": "/nonexistent",
    "DB_USER": "staking",
    "RPC_URL": "http://127.0.0.1:1",
    "ETH_RPC_URL": "http://127.0.0.1:1",
    "CHAIN_ID": "31337",
    "SIGNER_KEYS": "0x" + "11" * 32,
    "INTERNAL_API_KEY": "key",
    "RELAYER_HTTP_API_KEY": "key",
}


def make_app(service: str, **settings: str) -> Flask:
    """A service's app, without a database. By name: nothing but the relayer's own processes imports it."""
    module = importlib.import_module("relayer" if service == "relayer" else f"apps.{service}")
    with mock.patch.dict(os.environ, {**_SETTINGS, **settings}):
        app: Flask = module.create_app()
    return app


def document(service: str) -> str:
    """What the service answers at ``/openapi.json``."""
    with mock.patch.dict(os.environ, {"LOG_LEVEL": _SETTINGS["LOG_LEVEL"]}):
        configure_logging(service)
    answer = make_app(service).test_client().get("/openapi.json")
    configure_logging(service)
    text: str = answer.get_data(as_text=True)
    assert answer.status_code == 200, text
    return text
