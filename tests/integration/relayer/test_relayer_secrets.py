"""No key, raw transaction, password or URL with credentials is in any answer, error, log line, event or representation."""

import json
from pathlib import Path

import pytest
from sqlalchemy import select, text
from web3 import Web3

from apps.common.database import transaction
from relayer.settings import load_settings
from relayer.store.models import Attempt
from tests.support.chaos import SEND, chaos_proxy
from tests.support.relayer import CUSTODY_KEY, OPERATOR_KEY, STRANGER, Node, make_house
from tests.support.workers import Worker, pump_once, worker_environment

PATHS = (
    "/v1/transactions", "/v1/transactions/m:1", "/v1/transactions/m:1/events", "/v1/transactions/m:1/sends",
    "/v1/transactions/m:1/explain",
    "/v1/transactions/m:2/explain", "/v1/transactions/nobody", "/v1/signers", "/healthz", "/metrics", "/openapi.json",
    "/v1/transactions?status=nonsense",
)  # fmt: skip


def test_secrets__worker_and_web_in_trouble__in_no_text(
    database_url: str, node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The node quotes the transaction in its error, as some do; two more endpoints and the signer are not there."""
    log = tmp_path / "log"
    with chaos_proxy(node.url) as chaos:
        guarded = chaos.url.replace("http://", "http://user:rpc-word@")
        rpc_urls = (guarded, "http://user:other-word@127.0.0.1:1/rpc-path-token")
        environment = worker_environment(
            database_url,
            rpc_urls,
            WEB3SIGNER_URL="http://user:signer-word@127.0.0.1:1",
            WEB3SIGNER_ADDRESSES=STRANGER,
            RELAYER_HTTP_API_KEY="api-word",
            CELERY_BROKER_URL="redis://:broker-word@127.0.0.1:1/0",
        )
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        settings = load_settings()
        house = make_house(database_url, node, rpc_urls=rpc_urls, keyring=settings.keyring)
        house.post("m:1")
        house.post("m:2", **{"from": STRANGER}, purpose="payout")
        chaos.instead = lambda item: (
            {"error": {"code": -32000, "message": f"cannot take {item['params'][0]}"}}
            if item["method"] == SEND
            else None
        )
        for _ in range(3):
            worker = Worker(pump_once, environment, str(log))
            assert worker.dead(60)
            house.pump()
            node.mine()
        with transaction(house.context.sessions) as session:
            raws = session.scalars(select(Attempt.raw)).all()
            stored = [str(row) for row in session.execute(text("SELECT reply_text FROM sends")).all()]
    shown = [house.client.get(path).get_data(as_text=True) for path in PATHS]
    shown += [house.post("m:1", value_wei="nonsense").get_data(as_text=True)]
    shown += [log.read_text(), *stored, repr(settings), repr(house.context), *capfd.readouterr()]
    assert len(raws) == 1, house.message("m:1")
    assert "rpc_endpoint_failed" in log.read_text() or "send_refused" in log.read_text()
    secrets = [OPERATOR_KEY, CUSTODY_KEY, *(bytes(raw).hex() for raw in raws), Web3.to_hex(raws[0])]
    words = ["rpc-word", "other-word", "rpc-path-token", "signer-word", "api-word", "broker-word"]
    password = environment["DB_PASSWORD"]
    for page in shown:
        for secret in (*secrets, *words):
            assert secret.lower() not in page.lower(), json.dumps(secret)[:20]
        assert not password or f":{password}@" not in page
