"""The app for a WSGI server of your own. Ours is `python -m relayer`: it reads whole requests before a thread is taken."""

from relayer import create_app

app = create_app()
