"""docs/lido.md names tests, files and reason codes that are there."""

import re
from pathlib import Path

from apps.local.reason_codes import EVERYWHERE

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "lido.md").read_text()


def test_page__tests_named__all_there_and_fifteen_pitfalls() -> None:
    source = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", PAGE)
    assert [name for name in named if f"def {name}(" not in source] == []
    assert [name[:15] for name in named] == [f"test_pitfall_{number:02d}" for number in range(1, 16)]


def test_page__files_named__all_there() -> None:
    paths = re.findall(r"`((?:apps|tasks|tests|relayer)/[\w/.]+)`", PAGE)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_page__reasons_named__all_in_the_list_of_reasons() -> None:
    codes = {code for table in EVERYWHERE.values() for code in table}
    named = {"amount_too_small", "dust_out_of_bounds", "loss_ahead", "withdrawal_queue", "bunker", "queue_paused"}
    assert named | {"protocol_stopped", "staking_paused", "stake_limit", "reward_source_refused"} <= codes
