"""The one settings loader: the file beside the service, the environment before it, all faults at once."""

from pathlib import Path

import pytest

from apps.common.errors import NotConfigured
from apps.common.settings import SettingsError, SettingsReader, normalise_database_url, require_address


def reader(tmp_path: Path, text: str) -> SettingsReader:
    (tmp_path / ".env").write_text(text)
    return SettingsReader("sample", tmp_path)


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("postgres://u:p@h:5432/ledger?sslmode=disable", "postgresql+psycopg2://u:p@h:5432/ledger?sslmode=disable"),
        ("postgresql://u:p%40@h/ledger", "postgresql+psycopg2://u:p%40@h/ledger"),
        ("postgresql+psycopg2://h/x", "postgresql+psycopg2://h/x"),
    ],
)
def test_database_url__any_postgres_scheme__names_psycopg2(given: str, normal: str) -> None:
    assert normalise_database_url(given) == normal


@pytest.mark.parametrize("given", ["mysql://h/x", "postgres://h", "postgresql+psycopg://h/x", "ledger"])
def test_database_url__something_else__refused(given: str) -> None:
    with pytest.raises(ValueError, match="postgres://"):
        normalise_database_url(given)


def test_reader__environment_and_file__the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPLE_ONE", "from environment")
    monkeypatch.delenv("SAMPLE_TWO", raising=False)
    found = reader(tmp_path, "SAMPLE_ONE=from file\nSAMPLE_TWO=from file\nUNKNOWN_NAME=ignored\n")
    assert (found.text("SAMPLE_ONE"), found.text("SAMPLE_TWO")) == ("from environment", "from file")
    found.finish()


def test_reader__two_services__one_file_does_not_answer_for_the_other(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    reader(tmp_path / "one", "SAMPLE_PORT=1\n")
    assert reader(tmp_path / "two", "").integer("SAMPLE_PORT", 2) == 2


def test_reader__name_file__the_secret_is_read_from_it(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hush\n")
    found = reader(tmp_path, f"INTERNAL_API_KEY=other\nINTERNAL_API_KEY_FILE={tmp_path / 'secret'}\n")
    assert found.internal_keys("production") == ("hush",)


def test_reader__many_faults__all_in_one_error_by_name(tmp_path: Path) -> None:
    found = reader(
        tmp_path,
        "DATABASE_URL=mysql://x\nHTTP_PORT=eighty\nSTAKE_BATCH_THRESHOLD_WEI=1e18\nLEDGER_BASE_URL=ledger:8101\n"
        "HTTP_CLIENT_TIMEOUT_SEC=-1\nREWARD_SOURCE=magic\nSIGNER_KEYS_FILE=/nowhere/at/all\n",
    )
    found.database_url()
    found.integer("HTTP_PORT", 1)
    found.wei("STAKE_BATCH_THRESHOLD_WEI", 1)
    found.url("LEDGER_BASE_URL", "http://h")
    found.seconds("HTTP_CLIENT_TIMEOUT_SEC", 1)
    found.choice("REWARD_SOURCE", ("a", "b"), "a")
    found.text("SIGNER_KEYS", "")
    found.text("CHAIN_ID")
    with pytest.raises(SettingsError) as caught:
        found.finish()
    names = [fault.split()[0] for fault in caught.value.faults]
    assert names == [
        "DATABASE_URL",
        "HTTP_PORT",
        "STAKE_BATCH_THRESHOLD_WEI",
        "LEDGER_BASE_URL",
        "HTTP_CLIENT_TIMEOUT_SEC",
        "REWARD_SOURCE",
        "SIGNER_KEYS_FILE",
        "CHAIN_ID",
    ]


@pytest.mark.parametrize("keys", ["", "change-me", "good,change-me"])
def test_internal_keys__sample_or_none_in_production__refused(tmp_path: Path, keys: str) -> None:
    found = reader(tmp_path, f"INTERNAL_API_KEY={keys}\n")
    found.internal_keys("production")
    with pytest.raises(SettingsError, match="INTERNAL_API_KEY"):
        found.finish()


@pytest.mark.parametrize("value", [None, "", "0x...", "0x" + "0" * 40, "0x" + "g" * 40, "your-address-here"])
def test_require_address__placeholder__refused_by_name_where_it_is_needed(value: str | None) -> None:
    with pytest.raises(NotConfigured, match="CUSTODY_ETH_ADDRESS"):
        require_address("CUSTODY_ETH_ADDRESS", value)
