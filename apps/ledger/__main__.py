"""``python -m apps.ledger``: the ledger's web process."""

from apps.common.web_server import run_service
from apps.ledger import create_app
from apps.ledger.settings import load_settings

if __name__ == "__main__":
    run_service(load_settings, create_app)
