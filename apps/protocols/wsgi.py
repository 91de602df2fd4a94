"""Entry point of the web server."""

from apps.protocols import create_app

app = create_app()
app.extensions["service"].addresses.at_start()
