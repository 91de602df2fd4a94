"""``python -m apps.rewards``: the rewards service's web process."""

from apps.common.web_server import run_service
from apps.rewards import create_app
from apps.rewards.settings import load_settings

if __name__ == "__main__":
    run_service(load_settings, create_app)
