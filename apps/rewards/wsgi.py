"""The app for a WSGI server of your own. Ours is `python -m apps.rewards`: it reads whole requests before a thread is taken."""

from apps.rewards import create_app

app = create_app()
