"""APR by Lido's own formula, in integers."""

from apps.clients.shapes.history import Rebase
from apps.protocols.apr import apr_of

DAY = 86_400


def rebase(pre: tuple[int, int], post: tuple[int, int], elapsed: int = DAY, block: int = 1) -> Rebase:
    """(ether, shares) before and after."""
    return Rebase(
        block_number=block,
        block_hash="0xb1",
        tx_hash="0xaa",
        log_index=0,
        time_elapsed_sec=elapsed,
        pre_total_shares=pre[1],
        pre_total_ether_wei=pre[0],
        post_total_shares=post[1],
        post_total_ether_wei=post[0],
        operator_shares=0,
        reward_wei=0,
    )


def test_apr__one_report__yearly_growth_of_the_rate_net_of_fee() -> None:
    found = apr_of([rebase((10**24, 10**24), (10**24 + 10**20, 10**24))])
    assert found is not None
    assert found.apr == "0.03650000"  # 0.01 % a day


def test_apr__strangers_deposits_between_reports__change_nothing() -> None:
    first = rebase((10**24, 10**24), (10**24 + 10**20, 10**24))
    # Between the reports somebody staked: ether and shares grew at the same rate.
    grown = (5 * (10**24 + 10**20), 5 * 10**24)
    second = rebase(grown, (grown[0] + 5 * 10**20, grown[1]))
    found = apr_of([first, second])
    assert found is not None
    assert (found.apr, found.rebases, found.elapsed_sec) == ("0.03650000", 2, 2 * DAY)


def test_apr__a_slashing__negative() -> None:
    found = apr_of([rebase((10**24, 10**24), (10**24 - 10**20, 10**24))])
    assert found is not None
    assert found.apr == "-0.03650000"


def test_apr__a_skipped_report__the_next_one_covers_the_gap() -> None:
    found = apr_of([rebase((10**24, 10**24), (10**24 + 2 * 10**20, 10**24), elapsed=2 * DAY)])
    assert found is not None
    assert found.apr == "0.03650000"


def test_apr__nothing_to_go_by__none() -> None:
    assert apr_of([]) is None
    assert apr_of([rebase((1, 1), (2, 1), elapsed=0)]) is None
