"""The service as it is started in production, against a second deployment, told where that is by settings alone."""

import os
import subprocess
import sys
import time
from pathlib import Path

import requests

from apps.common.wei import ETHER
from apps.devnet.deployment import deploy
from tests.support.lido import Desk
from tests.support.ports import free_port
from tests.support.protocols import KEY

ROOT = Path(__file__).parents[3]


def test_service__second_deployment_by_settings_alone__reads_and_builds_there(desk: Desk, database_url: str) -> None:
    other = deploy(desk.rpc_url)
    assert other.steth != desk.deployment.steth
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "HTTP_PORT": str(port),
        "DATABASE_URL": database_url,
        "INTERNAL_API_KEY": KEY,
        "ETH_RPC_URL": desk.rpc_url,
        "CHAIN_ID": "31337",
        "CONFIRMATIONS": "1",
        "LIDO_STETH_ADDRESS": other.steth,
        "LIDO_WITHDRAWAL_QUEUE_ADDRESS": other.withdrawal_queue,
        "RELAYER_OPERATOR_ADDRESS": desk.operator,
        "CUSTODY_ETH_ADDRESS": desk.custody,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "apps.protocols"],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while not _answers(f"{url}/status/protocols"):
            assert process.poll() is None, process.stdout.read() if process.stdout else ""
            assert time.monotonic() < deadline, "the service did not answer within 60 s"
            time.sleep(0.05)
        session = requests.Session()
        session.headers["X-Internal-Key"] = KEY
        body = {"amount_wei": str(3 * ETHER)}
        built = session.post(f"{url}/v1/lido/transactions/submit", json=body, timeout=20).json()
        assert built["to"] == other.steth
        desk.submit(desk.operator, ETHER)  # at the first protocol: none of this service's business
        desk.send(built)
        items = session.get(f"{url}/v1/lido/history", timeout=20).json()["items"]
        assert [(item["kind"], item["amount_wei"]) for item in items] == [("submit", str(3 * ETHER))]
        approve = session.post(f"{url}/v1/lido/transactions/approve", json=body, timeout=20).json()
        assert other.withdrawal_queue[2:].lower() in approve["data"]
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=30)
    assert b"lido_addresses_right" in output


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.RequestException:
        return False
