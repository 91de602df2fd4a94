"""``python -m apps.pool``: the pool's web process."""

from apps.common.web_server import run_service
from apps.pool import create_app
from apps.pool.settings import load_settings

if __name__ == "__main__":
    run_service(load_settings, create_app)
