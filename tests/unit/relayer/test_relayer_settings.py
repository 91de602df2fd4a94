"""The relayer's settings: an existing deployment's names, and no secret in any text."""

import pytest

from apps.common.settings import SettingsError
from relayer.settings import load_settings

KEY = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
OLD_DEPLOYMENT = {
    "DB_HOST": "db",
    "DB_PORT": "5433",
    "DB_USER": "relayer",
    "DB_PASSWORD": "p@ss/word",
    "DB_NAME": "relay",
    "HTTP_PORT": "8082",
    "RPC_URL": "https://one.example/v1/secret, https://two.example",
    "CHAIN_ID": "1",
    "SIGNER_KEYS": KEY,
    "CONFIRMATIONS": "12",
    "GAS_LIMIT": "30000000",
    "RELAYER_HTTP_API_KEY": "",
    "FALLBACK_GAS_TIP_CAP_WEI": "2000000000",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in OLD_DEPLOYMENT.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_load__names_of_an_old_deployment__taken_unchanged(environment: pytest.MonkeyPatch) -> None:
    settings = load_settings()
    assert settings.database_url == "postgresql+psycopg2://relayer:p%40ss%2Fword@db:5433/relay"
    assert settings.rpc_urls == ("https://one.example/v1/secret", "https://two.example")
    assert (settings.confirmations, settings.gas_limit, settings.api_keys) == (12, 16_777_216, ())
    assert settings.steth_address is None


def test_load__repr__without_secrets(environment: pytest.MonkeyPatch) -> None:
    text = repr(load_settings())
    for secret in (KEY, "p%40ss", "secret", "p@ss"):
        assert secret not in text


def test_load__wrong_names__all_reported_at_once_without_secrets(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("SIGNER_KEYS", KEY + "00")
    environment.setenv("CHAIN_ID", "mainnet")
    environment.delenv("RPC_URL")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    text = str(caught.value)
    assert all(name in text for name in ("SIGNER_KEYS", "CHAIN_ID", "RPC_URL"))
    assert KEY not in text


def test_load__production_without_key__refused(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("APP_ENV", "production")
    with pytest.raises(SettingsError, match="RELAYER_HTTP_API_KEY"):
        load_settings()
