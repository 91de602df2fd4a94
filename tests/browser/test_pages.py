"""The pages that people look at, in a real browser: Swagger UI of each service, and the tasks in Flower."""

import shutil
import subprocess

import pytest

from apps.local.bff import Bff
from apps.local.stack import Stack
from tests.support.stack import SharedStack

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def stack(shared_stack: SharedStack) -> Stack:
    """The one that `tests/integration/life` goes on with."""
    return shared_stack.start()


def page(url: str) -> str:
    """The document after its scripts ran."""
    assert CHROMIUM is not None
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"]
    return subprocess.run(
        [CHROMIUM, *options, "--virtual-time-budget=20000", "--dump-dom", url],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout


def test_docs__each_service__shows_its_operations_without_the_internet(stack: Stack) -> None:
    shown = {
        "ledger": "/v1/movements",
        "protocols": "/v1/reconciliations",
        "rewards": "/v1/accruals",
        "pool": "/v1/stakes",
        "relayer": "/v1/signers",
    }
    for name, url in stack.status()["services"].items():
        document = page(f"{url}/docs")
        assert f"Staking: {name}" in document
        assert shown[name] in document.replace("\u200b", "")
        assert "Authorize" in document


def test_flower__workers_run__its_pages_list_workers_and_tasks(stack: Stack) -> None:
    bff = Bff(stack)
    url = stack.flower_url()
    workers = bff.wait("Flower to see both workers", lambda: page(f"{url}/workers"), lambda text: "relayer@" in text)
    assert "pool@" in workers
    tasks = bff.wait("Flower to list tasks", lambda: page(f"{url}/tasks"), lambda text: "tasks.sweep.wake" in text)
    assert "SUCCESS" in tasks
