"""Entry point of the web server."""

from apps.ledger import create_app

app = create_app()
