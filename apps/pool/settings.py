"""Settings of the pool service and of the Celery worker and beat that run its flows."""

from dataclasses import dataclass
from pathlib import Path

from apps.clients.shapes.pool import MIN_UNSTAKE_WEI
from apps.common.settings import BaseSettings, SettingsReader
from apps.common.wei import ETHER, GWEI

MIN_SECRET_KEY = 32


@dataclass(frozen=True)
class PoolSettings(BaseSettings):
    broker_url: str
    ledger_url: str
    rewards_url: str
    protocols_url: str
    relayer_url: str
    relayer_api_key: str
    http_timeout_sec: float
    custody_address: str | None
    operator_address: str | None
    stake_batch_threshold_wei: int
    stake_batch_max_wait_sec: float
    unstake_batch_threshold_wei: int
    unstake_batch_max_wait_sec: float
    reward_source: str
    pause_on_drift: bool
    ops_four_eyes: bool
    min_stake_wei: int = 1
    min_unstake_wei: int = MIN_UNSTAKE_WEI
    auto_claim_interval_sec: float = 86_400.0
    auto_claim_min_wei: int = GWEI
    webhook_secret_keys: tuple[str, ...] = ()
    webhook_allow_private: bool = False
    # Of payouts. Limits are wei of the last 24 hours; 0 is none.
    payout_address_delay_sec: int = 86_400
    payout_user_day_limit_wei: int = 100 * ETHER
    payout_day_limit_wei: int = 1_000 * ETHER
    payout_four_eyes_wei: int = 32 * ETHER

    @property
    def lease_sec(self) -> float:
        """A step makes at most six calls; the lease outlives the sum of their timeouts."""
        return 10 * self.http_timeout_sec


def load_settings() -> PoolSettings:
    """Read ``apps/pool/.env`` and the environment; raises `SettingsError` with every fault."""
    reader = SettingsReader("pool", Path(__file__).parent)
    app_env = reader.app_env()
    max_wait = reader.seconds("STAKE_BATCH_MAX_WAIT_SEC", 300)
    threshold = reader.wei("STAKE_BATCH_THRESHOLD_WEI", 32 * ETHER)
    settings = PoolSettings(
        app_env=app_env,
        http_port=reader.integer("HTTP_PORT", 8104, minimum=1),
        http_bind_address=reader.bind_address(),
        api_keys_file=reader.api_keys_file(),
        internal_keys=reader.internal_keys(app_env),
        database_url=reader.database_url(),
        broker_url=reader.broker_url(),
        pool_id=reader.pool_id(),
        ledger_url=reader.url("LEDGER_BASE_URL", "http://127.0.0.1:8101"),
        rewards_url=reader.url("REWARDS_BASE_URL", "http://127.0.0.1:8103"),
        protocols_url=reader.url("PROTOCOLS_BASE_URL", "http://127.0.0.1:8102"),
        relayer_url=reader.url("RELAYER_BASE_URL", "http://127.0.0.1:8082"),
        relayer_api_key=reader.text("RELAYER_HTTP_API_KEY", ""),
        http_timeout_sec=reader.seconds("HTTP_CLIENT_TIMEOUT_SEC", 10),
        custody_address=reader.optional_text("CUSTODY_ETH_ADDRESS"),
        operator_address=reader.optional_text("RELAYER_OPERATOR_ADDRESS"),
        stake_batch_threshold_wei=threshold,
        stake_batch_max_wait_sec=max_wait,
        unstake_batch_threshold_wei=reader.wei("UNSTAKE_BATCH_THRESHOLD_WEI", threshold),
        unstake_batch_max_wait_sec=reader.seconds("UNSTAKE_BATCH_MAX_WAIT_SEC", max_wait),
        reward_source=reader.choice("REWARD_SOURCE", ("share_rate", "total_pooled_ether"), "share_rate"),
        pause_on_drift=reader.flag("PAUSE_BATCHES_ON_DRIFT", default=False),
        ops_four_eyes=reader.flag("OPS_FOUR_EYES", default=app_env == "production"),
        min_stake_wei=reader.wei("MIN_STAKE_WEI", 1),
        min_unstake_wei=reader.wei("MIN_UNSTAKE_WEI", MIN_UNSTAKE_WEI),
        auto_claim_interval_sec=reader.seconds("AUTO_CLAIM_INTERVAL_SEC", 86_400),
        auto_claim_min_wei=reader.wei("AUTO_CLAIM_MIN_WEI", GWEI),
        webhook_secret_keys=_secret_keys(reader),
        webhook_allow_private=reader.flag("WEBHOOK_ALLOW_PRIVATE", default=False),
        payout_address_delay_sec=reader.integer("PAYOUT_ADDRESS_DELAY_SEC", 86_400),
        payout_user_day_limit_wei=reader.wei("PAYOUT_USER_DAY_LIMIT_WEI", 100 * ETHER),
        payout_day_limit_wei=reader.wei("PAYOUT_DAY_LIMIT_WEI", 1_000 * ETHER),
        payout_four_eyes_wei=reader.wei("PAYOUT_FOUR_EYES_WEI", 32 * ETHER),
    )
    if app_env == "production":
        reader.refuse_weak_keys("RELAYER_HTTP_API_KEY", [settings.relayer_api_key] if settings.relayer_api_key else [])
        if not settings.ops_four_eyes:
            reader.fault("OPS_FOUR_EYES", "is off, which APP_ENV=production refuses: what ops decide needs two persons")
    reader.finish()
    return settings


def _secret_keys(reader: SettingsReader) -> tuple[str, ...]:
    """What the secrets of webhooks are encrypted under: the first of the keys; all of them decrypt."""
    name = "WEBHOOK_SECRET_KEY"
    keys = tuple(key.strip() for key in (reader.optional_text(name) or "").split(",") if key.strip())
    if any(len(key) < MIN_SECRET_KEY for key in keys):
        reader.fault(name, f"must be random text of at least {MIN_SECRET_KEY} characters; several, comma-separated")
    return keys
