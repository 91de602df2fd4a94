"""``python -m relayer``: the relayer's web process."""

from apps.common.web_server import run_service
from relayer import create_app
from relayer.settings import load_settings

if __name__ == "__main__":
    run_service(load_settings, create_app)
