"""The app for another WSGI server. The one built in, `python -m relayer`, reads a whole request before it takes a thread."""

from relayer import create_app

app = create_app()
