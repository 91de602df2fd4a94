"""docs/lido.md names tests, files and reason codes that are there."""

import re
from pathlib import Path

from apps.common.errors import error_catalogue
from apps.ledger.kinds import KINDS
from apps.local.generated import errors_page
from apps.local.reason_codes import EVERYWHERE

# On the page as names of functions, columns, statuses, lines and kinds of history, replies of nodes.
NO_CODES = {
    "build_request", "read_statuses", "read_state", "settle_claim", "report", "exiting_wei", "next", "max", "failed", "finalized",
    "lido", "nfts", "foreign_in", "submit", "node_lacks", "node_rate_limited",
}  # fmt: skip

ROOT = Path(__file__).parents[2]
errors_page()  # loads every service's errors
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
    explained = {code for table in EVERYWHERE.values() for code in table}
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)*)`", PAGE))
    assert named - explained - set(KINDS) - {cls.code for cls in error_catalogue()} - NO_CODES == set()
    assert named >= {
        "amount_too_small", "bunker", "dust_out_of_bounds", "loss_ahead", "protocol_stopped", "queue_paused",
        "reward_source_refused", "stake_limit", "staking_paused", "withdrawal_queue",
    }  # fmt: skip
