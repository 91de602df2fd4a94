"""The expected time of a request, part by part, from what is known."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from apps.clients.shapes.protocols import StakeLimit
from apps.common.wei import ETHER
from apps.pool.quotes.estimate import Facts, Window, stake_basis, total_sec, unstake_basis
from tests.support.pool import lido_state

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
TOOK = {"stake": 40.0, "unstake": 50.0, "claim": 60.0}
FACTS = Facts(
    now=NOW,
    state=lido_state(),
    window=Window(queued_wei=2 * ETHER, waited_sec=100.0, threshold_wei=10 * ETHER, max_wait_sec=300.0),
    took_sec=TOOK,
    report=(NOW - timedelta(hours=4), DAY),
)


def parts(kind: str, wei: int, facts: Facts) -> dict[str, int | None]:
    found = {"stake": stake_basis, "unstake": unstake_basis}[kind](wei, facts)
    return {part.code: part.seconds for part in found}


def limited(current: int, growth: int | None) -> Facts:
    state = replace(FACTS.state, stake_limit=StakeLimit(current, 100 * ETHER, growth))
    return replace(FACTS, state=state)


def test_stake__below_the_threshold__the_rest_of_the_window_and_the_chain() -> None:
    assert parts("stake", ETHER, FACTS) == {"batch_window": 200, "confirmation": 40}


def test_stake__that_fills_the_batch__opens_at_once() -> None:
    assert parts("stake", 8 * ETHER, FACTS) == {"batch_window": 0, "confirmation": 40}


def test_stake__above_the_limit_of_now__as_many_blocks_as_it_takes_to_refill() -> None:
    found = parts("stake", 9 * ETHER, limited(current=10 * ETHER, growth=ETHER // 3))
    assert found == {"batch_window": 0, "stake_limit": 4 * 12, "confirmation": 40}  # 1 ETH short: 3 blocks and a bit
    assert total_sec(stake_basis(9 * ETHER, limited(10 * ETHER, None))) is None


def test_unstake__asked_in_time__paid_by_the_next_report_and_claimed() -> None:
    found = parts("unstake", ETHER, FACTS)
    assert found == {"batch_window": 200, "confirmation": 50, "withdrawal_queue": 20 * 3600 - 250, "claim": 60}
    assert total_sec(unstake_basis(ETHER, FACTS)) == 20 * 3600 + 60


def test_unstake__too_young_for_the_next_report__paid_by_the_one_after() -> None:
    late = replace(FACTS, report=(NOW - DAY + timedelta(minutes=30), DAY))
    assert total_sec(unstake_basis(ETHER, late)) == int(DAY.total_seconds()) + 30 * 60 + 60


def test_unstake__while_another_batch_is_open__waits_for_it_first() -> None:
    assert parts("unstake", ETHER, replace(FACTS, batch_open=True))["batch_open"] == 50


@pytest.mark.parametrize(
    ("kind", "facts", "code"),
    [
        ("stake", replace(FACTS, state=lido_state(staking_paused=True)), "staking_paused"),
        ("unstake", replace(FACTS, state=lido_state(queue_paused=True)), "queue_paused"),
        ("unstake", replace(FACTS, state=lido_state(bunker=True)), "bunker"),
        ("unstake", replace(FACTS, report=None), "withdrawal_queue"),
    ],
)
def test_estimate__of_what_nobody_knows__none_and_why(kind: str, facts: Facts, code: str) -> None:
    found = parts(kind, ETHER, facts)
    assert found[code] is None


def test_estimate__with_no_batch_yet__counts_nothing_for_it_and_says_so() -> None:
    (_, took) = stake_basis(ETHER, replace(FACTS, took_sec={}))
    assert (took.seconds, took.detail) == (0, "No stake batch has been completed yet to measure by.")
