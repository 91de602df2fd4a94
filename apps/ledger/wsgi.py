"""The app for a WSGI server of your own. Ours is `python -m apps.ledger`: it reads whole requests before a thread is taken."""

from apps.ledger import create_app

app = create_app()
