"""What ``APP_ENV=production`` refuses, by the name of the setting, in the services' own loaders."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from apps.common.settings import SettingsError
from apps.local.api_documents import make_app

KEY = "a-secret-of-our-own-0123456789"
SAFE = {
    "APP_ENV": "production",
    "INTERNAL_API_KEY": KEY,
    "RELAYER_HTTP_API_KEY": KEY,
    "DATABASE_URL": "postgres://ledger:our-own@db:5432/ledger",
    "DB_HOST": "db",
    "DB_USER": "relayer",
    "DB_PASSWORD": "our-own",
    "RPC_URL": "https://node.example.com/v3/secret",
    "ETH_RPC_URL": "https://node.example.com/v3/secret",
    "CHAIN_ID": "1",
    "SIGNER_KEYS": "11" * 32,
    "LEDGER_BASE_URL": "http://ledger:8101",
    "PROTOCOLS_BASE_URL": "http://10.0.0.7:8102",
    "REWARDS_BASE_URL": "http://rewards.staking.svc.cluster.local:8103",
    "RELAYER_BASE_URL": "https://relayer.example.com",
}
ANVIL_KEY = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
SERVICES = ("ledger", "protocols", "rewards", "pool", "relayer")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def load(service: str, **changes: str) -> Any:
        for name, value in {**SAFE, **changes}.items():
            monkeypatch.setenv(name, value)
        return importlib.import_module("relayer" if service == "relayer" else f"apps.{service}").load_settings()

    return load


@pytest.mark.parametrize("service", SERVICES)
def test_production__safe_settings__every_service_starts(load: Callable[..., Any], service: str) -> None:
    assert load(service).app_env == "production"


@pytest.mark.parametrize(
    ("service", "name", "value"),
    [
        *(
            (service, "INTERNAL_API_KEY", value)
            for service in SERVICES[:4]
            for value in ("", "change-me", "short", f"{KEY},x")
        ),
        *(("relayer", "RELAYER_HTTP_API_KEY", value) for value in ("", "change-me", "short", f"{KEY},x")),
        *(("pool", "RELAYER_HTTP_API_KEY", value) for value in ("change-me", "short")),
        *((service, "DATABASE_URL", "postgres://staking:staking@db/x") for service in SERVICES[:4]),
        ("relayer", "DB_PASSWORD", "staking"),
        ("relayer", "CHAIN_ID", "31337"),
        ("protocols", "CHAIN_ID", "1337"),
        ("relayer", "SIGNER_KEYS", ANVIL_KEY),
        ("relayer", "RPC_URL", "https://one.example.com,http://two.example.com/v3/secret"),
        ("protocols", "ETH_RPC_URL", "http://8.8.8.8:8545"),
        ("protocols", "LEDGER_BASE_URL", "http://ledger.example.com"),
        *(
            ("pool", f"{name}_BASE_URL", "http://there.example.com")
            for name in ("LEDGER", "PROTOCOLS", "REWARDS", "RELAYER")
        ),
        ("pool", "OPS_FOUR_EYES", "false"),
    ],
)
def test_production__an_unsafe_setting__refused_by_name_without_its_value(
    load: Callable[..., Any], service: str, name: str, value: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(service, **{name: value})
    (fault,) = caught.value.faults
    assert fault.split()[0] == name
    for secret in (KEY, "v3/secret", "staking:staking", ANVIL_KEY, "short"):
        assert secret not in fault.replace("shorter", "")


@pytest.mark.parametrize(("name", "value"), [("RPC_URL", "http://node.example.com"), ("CHAIN_ID", "31337")])
def test_development__what_production_refuses__taken(load: Callable[..., Any], name: str, value: str) -> None:
    assert load("relayer", **{name: value, "APP_ENV": "development"}).app_env == "development"


def test_production__plain_http_to_a_host_that_is_named__taken(load: Callable[..., Any]) -> None:
    found = load("relayer", RPC_URL="http://node.example.com", PLAIN_HTTP_HOSTS="other, node.example.com")
    assert found.rpc_urls == ("http://node.example.com",)


@pytest.mark.parametrize("service", SERVICES)
def test_any_environment__a_keys_file_that_is_none__refused_by_name(service: str, tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text("secret-key")
    for path in ("/nowhere/at/all", str(tmp_path / "keys.toml")):
        with pytest.raises(SettingsError, match="API_KEYS_FILE") as caught:
            make_app(service, API_KEYS_FILE=path)
        assert "secret-key" not in str(caught.value)
