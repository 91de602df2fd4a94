"""Settings of the relayer."""

from dataclasses import dataclass, field
from pathlib import Path

from apps.common.errors import NotConfigured
from apps.common.settings import SettingsReader, compose_database_url
from apps.common.wei import ETHER, GWEI
from apps.ethereum.addresses import checksum_setting
from apps.ethereum.constants import MAX_GAS, TRANSFER_GAS
from relayer.signing.signers import Web3Signer, parse_keys, read_keystores
from relayer.signing.transactions import Keyring, Signer

# Of the test keys that anvil and hardhat print when they start.
WELL_KNOWN = frozenset(
    {
        "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
        "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
        "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
        "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
        "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65",
        "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc",
        "0x976EA74026E726554dB657fA54763abd0C3a0aa9",
        "0x14dC79964da2C08b23698B3D3cc7Ca32193d9955",
        "0x23618e81E3f5cdF7f54C3d65f7FBc0aBf5B21E8f",
        "0xa0Ee7A142d267C1f36714E4a8F75612F20a79720",
    }
)


@dataclass(frozen=True)
class RelayerSettings:
    """What the relayer reads. Its representation leaves out keys, passwords, and URLs, which may hold either."""

    app_env: str
    http_port: int
    database_url: str = field(repr=False)
    broker_url: str = field(repr=False)
    rpc_urls: tuple[str, ...] = field(repr=False)
    chain_id: int
    keyring: Keyring = field(repr=False)
    api_keys: tuple[str, ...] = field(repr=False)
    confirmations: int
    money_horizon: str | None
    gas_limit: int
    fallback_tip_wei: int
    custody_address: str | None
    operator_address: str | None
    steth_address: str | None
    queue_address: str | None
    max_value_per_tx_wei: int
    max_value_per_day_wei: int
    max_payout_per_tx_wei: int
    max_payout_per_day_wei: int
    max_gas_per_tx_wei: int
    max_gas_per_day_wei: int
    max_in_flight: int
    settle_quorum: int  # 0: two where two endpoints answer
    http_bind_address: str = "127.0.0.1"
    api_keys_file: Path | None = None


def load_settings() -> RelayerSettings:
    """Read ``relayer/.env`` and the environment; raises `SettingsError` with every fault, never with a secret."""
    reader = _reader()
    app_env = reader.app_env()
    settings = RelayerSettings(
        app_env=app_env,
        http_port=reader.integer("HTTP_PORT", 8082, minimum=1),
        http_bind_address=reader.bind_address(),
        database_url=_database_url(reader),
        broker_url=reader.broker_url(),
        rpc_urls=reader.urls("RPC_URL"),
        chain_id=reader.chain_id(minimum=1),
        keyring=_keyring(reader, app_env),
        api_keys=reader.keys("RELAYER_HTTP_API_KEY", app_env),
        api_keys_file=reader.api_keys_file(),
        confirmations=max(1, reader.integer("CONFIRMATIONS", 2) or 1),
        money_horizon=reader.choice("MONEY_HORIZON", ("", "finalized", "depth"), "") or None,
        # EIP-7825 caps a transaction's gas; an older file may hold more.
        gas_limit=min(MAX_GAS, reader.integer("GAS_LIMIT", 1_000_000, minimum=TRANSFER_GAS) or 0),
        fallback_tip_wei=reader.wei("FALLBACK_GAS_TIP_CAP_WEI", GWEI),
        custody_address=reader.optional_text("CUSTODY_ETH_ADDRESS"),
        operator_address=reader.optional_text("RELAYER_OPERATOR_ADDRESS"),
        steth_address=reader.optional_text("LIDO_STETH_ADDRESS"),
        queue_address=reader.optional_text("LIDO_WITHDRAWAL_QUEUE_ADDRESS"),
        max_value_per_tx_wei=reader.wei("MAX_VALUE_PER_TX_WEI", 10_000 * ETHER),
        max_value_per_day_wei=reader.wei("MAX_VALUE_PER_DAY_WEI", 100_000 * ETHER),
        max_payout_per_tx_wei=reader.wei("MAX_PAYOUT_PER_TX_WEI", 1_000 * ETHER),
        max_payout_per_day_wei=reader.wei("MAX_PAYOUT_PER_DAY_WEI", 1_000 * ETHER),
        max_gas_per_tx_wei=reader.wei("MAX_GAS_PER_TX_WEI", ETHER),
        max_gas_per_day_wei=reader.wei("MAX_GAS_PER_DAY_WEI", 20 * ETHER),
        max_in_flight=reader.integer("MAX_IN_FLIGHT", 64, minimum=1),
        settle_quorum=reader.integer("SETTLE_QUORUM", 0),
    )
    reader.finish()
    if settings.settle_quorum > len(settings.rpc_urls):
        reader.fault("SETTLE_QUORUM", "must be no more than the number of endpoints in RPC_URL")
        reader.finish()
    return settings


def load_broker_url() -> str:
    """Only the broker's URL: what the Celery app needs before anything else is read."""
    return _reader().broker_url()


def load_database_url() -> str:
    """Only the database's URL, for migrations: they are given no keys."""
    reader = _reader()
    url = _database_url(reader)
    reader.finish()
    return url


def _reader() -> SettingsReader:
    return SettingsReader("relayer", Path(__file__).parent)


def _database_url(reader: SettingsReader) -> str:
    return compose_database_url(
        reader.text("DB_HOST", "127.0.0.1") or "",
        reader.integer("DB_PORT", 5432, minimum=1) or 0,
        reader.text("DB_USER") or "",
        _password(reader),
        reader.text("DB_NAME", "relayer") or "",
    )


def _password(reader: SettingsReader) -> str:
    password = reader.text("DB_PASSWORD", "") or ""
    try:
        reader.refuse_sample_password(password)
    except ValueError as error:
        reader.fault("DB_PASSWORD", str(error))
    return password


def _keyring(reader: SettingsReader, app_env: str) -> Keyring:
    """Local keys first, then keystore files, then a Web3Signer; at least one key, and in production none that all know."""
    raw, files = reader.optional_text("SIGNER_KEYS"), _list(reader, "KEYSTORE_FILES")
    url, password = reader.optional_text("WEB3SIGNER_URL"), reader.optional_text("KEYSTORE_PASSWORD") or ""
    signers: list[Signer] = []
    name = "SIGNER_KEYS"
    try:
        if raw:
            signers.append(parse_keys(raw))
        name = "KEYSTORE_FILES"
        if files:
            signers.append(read_keystores(files, password))
        name = "WEB3SIGNER_ADDRESSES"
        if url:
            addresses = [checksum_setting(name, address) for address in _list(reader, name)]
            if not addresses:
                raise ValueError("must name the addresses that WEB3SIGNER_URL signs for")
            signers.append(Web3Signer(url, addresses))
        name = "SIGNER_KEYS"
        if not signers:
            raise ValueError("is missing, as are KEYSTORE_FILES and WEB3SIGNER_URL")
        keyring = Keyring(signers)
        if app_env == "production" and WELL_KNOWN.intersection(keyring.addresses):
            raise ValueError("holds a key of the development nodes, which everybody has")
        return keyring
    except NotConfigured:
        reader.fault(name, "must be 0x addresses of 40 hex digits")
    except ValueError as error:
        reader.fault(name, str(error))
    return Keyring(())


def _list(reader: SettingsReader, name: str) -> list[str]:
    return [part.strip() for part in (reader.optional_text(name) or "").split(",") if part.strip()]
