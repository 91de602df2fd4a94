"""The users' yearly rate as Lido computes it, in integers. Pure.

APR = 31536000 * (post rate - pre rate) / pre rate / elapsed seconds, rate = ether * 1e27 / shares (Lido's api docs).
"""

from collections.abc import Sequence
from typing import Any

YEAR_SEC = 31_536_000
RATE = 10**27
DIGITS = 8


def apr_of(rebases: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The rate over consecutive rebases, as a decimal fraction in text; None without any, or without elapsed time."""
    if not rebases:
        return None
    first, last = rebases[0], rebases[-1]
    pre = int(first["pre_total_ether_wei"]) * RATE // int(first["pre_total_shares"])
    post = int(last["post_total_ether_wei"]) * RATE // int(last["post_total_shares"])
    elapsed = sum(int(rebase["time_elapsed_sec"]) for rebase in rebases)
    if elapsed == 0 or pre == 0:
        return None
    scaled = YEAR_SEC * (post - pre) * 10**DIGITS // (pre * elapsed)
    sign, scaled = ("-", -scaled) if scaled < 0 else ("", scaled)
    return {
        "apr": f"{sign}{scaled // 10**DIGITS}.{scaled % 10**DIGITS:0{DIGITS}d}",
        "rebases": len(rebases),
        "elapsed_sec": elapsed,
        "block_number": last["block_number"],
    }
