"""The ``.env`` files of an existing deployment, in the places where it keeps them, start the services unchanged."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tests.support.anvil import start_anvil
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
KEY = "an-internal-key"
PLACEHOLDER = "0x0000000000000000000000000000000000000000"

# Names, forms and quoting of the old files; what is gone (Temporal) stands in them still and is passed over.
SHARED = f"""
# shared
INTERNAL_API_KEY={KEY}
HTTP_CLIENT_TIMEOUT_SEC=10
TEMPORAL_HOST_PORT=localhost:7233
"""
FILES = {
    "ledger": "DATABASE_URL={database}\nHTTP_PORT={port}\n" + SHARED,
    "rewards": 'DATABASE_URL="{database}"\nHTTP_PORT="{port}"\n' + SHARED,
    "protocols": "DATABASE_URL={database}\nHTTP_PORT={port}\nETH_RPC_URL={rpc}\nLEDGER_BASE_URL=http://localhost:8101\n"
    f"LIDO_STETH_ADDRESS={PLACEHOLDER}\nLIDO_WITHDRAWAL_QUEUE_ADDRESS=0x...\nCUSTODY_ETH_ADDRESS=\n" + SHARED,
    "pool": "DATABASE_URL={database}\nHTTP_PORT={port}\nLEDGER_BASE_URL=http://localhost:8101\n"
    "REWARDS_BASE_URL=http://localhost:8103\nPROTOCOLS_BASE_URL=http://localhost:8102\n"
    "RELAYER_BASE_URL=http://localhost:8082\nPOOL_ID=eth_native\nSTAKE_BATCH_THRESHOLD_WEI=32000000000000000000\n"
    f"CUSTODY_ETH_ADDRESS={PLACEHOLDER}\nRELAYER_OPERATOR_ADDRESS={PLACEHOLDER}\n" + SHARED,
    "relayer": "DB_HOST={host}\nDB_PORT={db_port}\nDB_USER={user}\nDB_PASSWORD={password}\nDB_NAME={name}\n"
    "HTTP_PORT={port}\nRPC_URL={rpc}\nCHAIN_ID=31337\n"
    "SIGNER_KEYS=ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80\nCONFIRMATIONS=12\n"
    "GAS_LIMIT=300000\nRELAYER_HTTP_API_KEY=\nFALLBACK_GAS_TIP_CAP_WEI=1000000000\n",
}
FIRST_READS = {"ledger": "/v1/totals", "rewards": "/v1/events", "pool": "/v1/requests", "relayer": "/v1/signers"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program's own folders, elsewhere, so that the files of whoever runs the tests are left alone."""
    directory = tmp_path_factory.mktemp("deployment")
    for name in ("apps", "relayer"):
        ignore = shutil.ignore_patterns("node_modules", "__pycache__", ".env")
        shutil.copytree(ROOT / name, directory / name, ignore=ignore)
    return directory


@pytest.mark.parametrize("service", FILES)
def test_service__file_of_an_old_deployment__starts_and_answers(
    service: str, tree: Path, make_database: Callable[[str], str]
) -> None:
    url = make_database(service)
    user, _, rest = url.removeprefix("postgresql://").removeprefix("postgresql+psycopg2://").partition(":")
    password, _, place = rest.partition("@")
    address, _, name = place.partition("/")
    host, _, db_port = address.partition(":")
    port = free_port()
    with start_anvil() as anvil:
        file = FILES[service].format(
            database=f"postgres://{user}:{password}@{place}?sslmode=disable",
            port=port, rpc=anvil.url, host=host, db_port=db_port, user=user, password=password, name=name.partition("?")[0],
        )  # fmt: skip
        home = tree / ("relayer" if service == "relayer" else f"apps/{service}")
        (home / ".env").write_text(file)
        process = subprocess.Popen(
            [sys.executable, "-m", "relayer" if service == "relayer" else f"apps.{service}"],
            cwd=tree,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tree)},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            checks = wait_for_status(process, port, "/healthz" if service == "relayer" else f"/status/{service}")
            assert checks["database"]["ok"], checks
            if service in FIRST_READS:
                answer = requests.get(
                    f"http://127.0.0.1:{port}{FIRST_READS[service]}", headers={"X-Internal-Key": KEY}, timeout=10
                )
                assert answer.status_code == 200, answer.text
            else:  # a placeholder address is refused by name where it is needed, not at the start
                answer = requests.get(
                    f"http://127.0.0.1:{port}/v1/lido/state", headers={"X-Internal-Key": KEY}, timeout=10
                )
                assert (answer.status_code, answer.json()["code"]) == (503, "not_configured")
                assert "LIDO_STETH_ADDRESS" in answer.json()["detail"]
        finally:
            process.terminate()
            process.communicate(timeout=30)


def wait_for_status(process: subprocess.Popen[str], port: int, path: str) -> dict[str, dict[str, bool]]:
    """The checks of the status page once anybody answers; what the broker and the placeholders say is not asked here."""
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "nobody answers"
        try:
            found: dict[str, dict[str, bool]] = requests.get(f"http://127.0.0.1:{port}{path}", timeout=10).json()[
                "checks"
            ]
        except requests.RequestException:
            time.sleep(0.1)
            continue
        return found
