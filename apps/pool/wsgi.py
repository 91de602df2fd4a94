"""The app for a WSGI server of your own. Ours is `python -m apps.pool`: it reads whole requests before a thread is taken."""

from apps.pool import create_app

app = create_app()
