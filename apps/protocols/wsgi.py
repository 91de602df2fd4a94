"""The app for a WSGI server of your own. Ours is `python -m apps.protocols`: it reads whole requests before a thread is taken."""

from apps.protocols import create_app

app = create_app()
app.extensions["addresses"].at_start()
