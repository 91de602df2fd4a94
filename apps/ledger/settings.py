"""Settings of the ledger."""

from pathlib import Path

from apps.common.settings import BaseSettings, SettingsReader

# The ledger reads what every web service reads, and nothing more.
LedgerSettings = BaseSettings


def load_settings() -> LedgerSettings:
    """Read ``apps/ledger/.env`` and the environment; raises `SettingsError` with every fault."""
    reader = SettingsReader("ledger", Path(__file__).parent)
    app_env = reader.app_env()
    settings = LedgerSettings(
        app_env=app_env,
        http_port=reader.integer("HTTP_PORT", 8101, minimum=1),
        http_bind_address=reader.bind_address(),
        api_keys_file=reader.api_keys_file(),
        internal_keys=reader.internal_keys(app_env),
        database_url=reader.database_url(),
        pool_id=reader.pool_id(),
    )
    reader.finish()
    return settings
