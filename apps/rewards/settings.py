"""Settings of the rewards service."""

from dataclasses import dataclass
from pathlib import Path

from apps.common.settings import BaseSettings, SettingsReader
from apps.rewards.index_math import BPS


@dataclass(frozen=True)
class RewardsSettings(BaseSettings):
    reward_fee_bps: int


def load_settings() -> RewardsSettings:
    """Read ``apps/rewards/.env`` and the environment; raises `SettingsError` with every fault."""
    reader = SettingsReader("rewards", Path(__file__).parent)
    app_env = reader.app_env()
    fee_bps = reader.integer("REWARD_FEE_BPS", 0)
    if fee_bps is not None and fee_bps > BPS:
        reader.fault("REWARD_FEE_BPS", f"must be at most {BPS} (100 %)")
    settings = RewardsSettings(
        app_env=app_env,
        http_port=reader.integer("HTTP_PORT", 8103, minimum=1),
        http_bind_address=reader.bind_address(),
        api_keys_file=reader.api_keys_file(),
        internal_keys=reader.internal_keys(app_env),
        database_url=reader.database_url(),
        pool_id=reader.pool_id(),
        reward_fee_bps=fee_bps,
    )
    reader.finish()
    return settings
