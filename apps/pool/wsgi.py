"""Entry point of the web server."""

from apps.pool import create_app

app = create_app()
