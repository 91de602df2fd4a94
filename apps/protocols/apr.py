"""The users' yearly rate as Lido computes it, in integers. Pure.

APR = 31536000 * (post rate - pre rate) / pre rate / elapsed seconds, rate = ether * 1e27 / shares (Lido's api docs).
"""

from collections.abc import Sequence

from apps.clients.shapes.history import Rebase, YearlyRate
from apps.common.wei import decimal_fraction
from apps.ethereum.constants import RAY

YEAR_SEC = 31_536_000
DIGITS = 8


def apr_of(rebases: Sequence[Rebase]) -> YearlyRate | None:
    """The rate over consecutive rebases; None without any, or without elapsed time."""
    if not rebases:
        return None
    first, last = rebases[0], rebases[-1]
    pre = first.pre_total_ether_wei * RAY // first.pre_total_shares
    post = last.post_total_ether_wei * RAY // last.post_total_shares
    elapsed = sum(rebase.time_elapsed_sec for rebase in rebases)
    apr = decimal_fraction(YEAR_SEC * (post - pre), pre * elapsed, DIGITS)
    if apr is None:
        return None
    return YearlyRate(apr=apr, rebases=len(rebases), elapsed_sec=elapsed, block_number=last.block_number)
