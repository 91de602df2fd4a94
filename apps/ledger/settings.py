"""Settings of the ledger."""

from dataclasses import dataclass
from pathlib import Path

from apps.common.settings import BaseSettings, SettingsReader


@dataclass(frozen=True)
class LedgerSettings(BaseSettings):
    pass


def load_settings() -> LedgerSettings:
    """Read ``apps/ledger/.env`` and the environment; raises `SettingsError` with every fault."""
    reader = SettingsReader("ledger", Path(__file__).parent)
    app_env = reader.app_env()
    settings = LedgerSettings(
        app_env=app_env,
        http_port=reader.integer("HTTP_PORT", 8101, minimum=1),
        http_bind_address=reader.bind_address(),
        internal_keys=reader.internal_keys(app_env),
        database_url=reader.database_url(),
        broker_url=BaseSettings.read_broker(reader),
        pool_id=reader.pool_id(),
    )
    reader.finish()
    return settings
