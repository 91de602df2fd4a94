"""``python -m apps.protocols``: the protocols service's web process."""

from flask import Flask

from apps.common.web_server import run_service
from apps.protocols import create_app
from apps.protocols.settings import ProtocolsSettings, load_settings


def start(settings: ProtocolsSettings) -> Flask:
    """The app, which says at once in its log whether the addresses set are one protocol's."""
    app = create_app(settings)
    app.extensions["addresses"].at_start()
    return app


if __name__ == "__main__":
    run_service(load_settings, start)
