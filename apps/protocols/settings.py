"""Settings of protocols."""

from dataclasses import dataclass, field
from pathlib import Path

from apps.common.settings import BaseSettings, SettingsReader


@dataclass(frozen=True)
class ProtocolsSettings(BaseSettings):
    rpc_urls: tuple[str, ...] = field(repr=False)  # providers put their keys into the path
    rpc_timeout_sec: float
    ledger_url: str
    http_timeout_sec: float
    custody_address: str | None
    operator_address: str | None
    steth_address: str | None
    withdrawal_queue_address: str | None
    confirmations: int
    money_horizon: str | None
    chain_id: int | None
    start_block: int | None
    log_range_blocks: int


def load_settings() -> ProtocolsSettings:
    """Read ``apps/protocols/.env`` and the environment; raises `SettingsError` with every fault."""
    reader = SettingsReader("protocols", Path(__file__).parent)
    app_env = reader.app_env()
    start = reader.integer("LIDO_START_BLOCK", -1, minimum=-1)
    chain_id = reader.chain_id(0)
    settings = ProtocolsSettings(
        app_env=app_env,
        http_port=reader.integer("HTTP_PORT", 8102, minimum=1),
        http_bind_address=reader.bind_address(),
        api_keys_file=reader.api_keys_file(),
        internal_keys=reader.internal_keys(app_env),
        database_url=reader.database_url(),
        pool_id=reader.pool_id(),
        rpc_urls=reader.urls("ETH_RPC_URL"),
        rpc_timeout_sec=reader.seconds("ETH_RPC_TIMEOUT_SEC", 8),
        ledger_url=reader.url("LEDGER_BASE_URL", "http://127.0.0.1:8101"),
        http_timeout_sec=reader.seconds("HTTP_CLIENT_TIMEOUT_SEC", 10),
        custody_address=reader.optional_text("CUSTODY_ETH_ADDRESS"),
        operator_address=reader.optional_text("RELAYER_OPERATOR_ADDRESS"),
        steth_address=reader.optional_text("LIDO_STETH_ADDRESS"),
        withdrawal_queue_address=reader.optional_text("LIDO_WITHDRAWAL_QUEUE_ADDRESS"),
        confirmations=reader.integer("CONFIRMATIONS", 2, minimum=1),
        money_horizon=reader.choice("MONEY_HORIZON", ("finalized", "depth"), "") or None,
        chain_id=chain_id or None,
        start_block=None if start is None or start < 0 else start,
        log_range_blocks=reader.integer("LOG_RANGE_BLOCKS", 10_000, minimum=1),
    )
    reader.finish()
    return settings
