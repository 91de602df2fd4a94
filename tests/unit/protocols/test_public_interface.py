"""Services and relayer use Lido's public interface alone: any contract that has it will do."""

import re
from pathlib import Path

import pytest

from apps.devnet.deployment import artifact
from apps.ethereum.contracts import LIDO, LOCATOR, QUEUE

ROOT = Path(__file__).parents[3]
# From the protocol's documentation, on mainnet since 2023 and unchanged since.
PUBLIC = {
    "submit", "approve", "allowance", "balanceOf", "sharesOf", "getTotalShares", "getTotalPooledEther",
    "getPooledEthByShares", "isStakingPaused", "isStopped", "getStakeLimitFullInfo", "getLidoLocator",
    "requestWithdrawals", "claimWithdrawalsTo", "getWithdrawalStatus", "getClaimableEther", "findCheckpointHints",
    "getLastCheckpointIndex", "getLastRequestId", "isPaused", "isBunkerModeActive", "lido", "withdrawalQueue",
}  # fmt: skip
# The desk's own buttons, which no other protocol has.
DESK_ONLY = {
    "report", "initialize", "setFee", "setStakingLimit", "pauseStaking", "resumeStaking", "pauseFor", "setBunkerMode",
    "prefinalize", "finalize",
}  # fmt: skip
FOLDERS = ("apps/ethereum", "apps/protocols", "apps/pool", "apps/clients", "apps/common", "relayer", "tasks")


def test_interface__every_function_used__is_public() -> None:
    used = {name for interface in (LIDO, QUEUE, LOCATOR) for name in interface.functions}
    assert used <= PUBLIC


def test_desk_only_names__are_the_desks() -> None:
    names = {item["name"] for name in ("Lido", "WithdrawalQueue") for item in artifact(name)["abi"] if "name" in item}
    assert names >= DESK_ONLY


@pytest.mark.parametrize(
    "folder", ["apps/ethereum", "apps/protocols", "apps/pool", "apps/clients", "apps/common", "relayer", "tasks"]
)
def test_services__source__names_nothing_that_only_the_desk_has(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        text = path.read_text()
        assert "apps.devnet" not in text, path
        for name in DESK_ONLY - {"report", "initialize", "finalize"}:
            assert re.search(rf"\b{name}\b", text) is None, (path, name)
