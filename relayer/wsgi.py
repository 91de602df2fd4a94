"""Entry point of the web server."""

from relayer import create_app

app = create_app()
