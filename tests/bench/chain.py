"""``make bench NAME=chain``: what a stake, an unstake and a look at open withdrawals cost on chain and in RPC calls.

Gas is what receipts say, divided by the users who shared the transaction; nothing here depends on the machine's speed.
The last line is JSON.
"""

import json
import sys
from typing import Any

from apps.clients.shapes.protocols import WithdrawalItem
from apps.common.shapes import dump
from apps.common.wei import ETHER
from apps.protocols.builders import Builders
from apps.protocols.chain import Chain
from apps.protocols.withdrawals import read_statuses
from tests.support.lido import Desk, start_desk
from tests.support.protocols import make_settings
from tests.support.rpc import Tap, tapped

BATCHES = (1, 10, 100)
OPEN = (10, 1_000, 10_000)
IDS_PER_CALL = 1_000  # as the claim polling asks, apps.pool.flows.withdrawal_claim.IDS_PER_STATUS_CALL
STAKE_WEI = ETHER // 10
FINAL_PER_REPORT = 500


def main() -> int:
    with start_desk() as desk, tapped(desk.rpc_url) as tap:
        chain = Chain(make_settings(desk, "postgresql://nobody@127.0.0.1:1/none", rpc_urls=(tap.url,)))
        desk.submit(desk.operator, 2_000 * ETHER)
        desk.approve(desk.operator, 2**256 - 1)
        desk.request(desk.operator, [ETHER])  # the first ever writes to fresh storage, which no later one pays for
        desk.approve(desk.operator, 2**256 - 1)
        sys.stdout.write(f"{'':<34}{'users':>7}{'gas / user':>12}{'RPC calls':>11}{'HTTP requests':>15}\n")
        stakes = {users: _stake(desk, tap, chain, users) for users in BATCHES}
        unstakes = {users: _unstake(desk, tap, chain, users) for users in BATCHES}
        for users in BATCHES:
            _claim(desk, tap, chain, users)
        polls = _polls(desk, tap, chain)
    ratios = {
        "unstake_gas_per_user_100_vs_1": round(unstakes[100] / unstakes[1], 4),
        "stake_gas_per_user_100_vs_1": round(stakes[100] / stakes[1], 4),
    }
    answer = {"bench": "chain", "ratios": ratios, "rpc_calls_per_poll_10000": polls[OPEN[-1]]}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def _stake(desk: Desk, tap: Tap, chain: Chain, users: int) -> float:
    """One submit for all of a batch's stakes."""
    tap.requests.clear()
    built = Builders(chain).submit(users * STAKE_WEI)
    return _tell("stake: one submit", users, desk.send(dump(built)), tap)


def _unstake(desk: Desk, tap: Tap, chain: Chain, users: int) -> float:
    """One requestWithdrawals, an element a user."""
    tap.requests.clear()
    items = [WithdrawalItem(reference=str(number), amount_wei=ETHER // 100 + number) for number in range(users)]
    return _tell(
        "unstake: one requestWithdrawals", users, desk.send(dump(Builders(chain).request_withdrawals(items))), tap
    )


def _claim(desk: Desk, tap: Tap, chain: Chain, users: int) -> None:
    ids = desk.request(desk.operator, [ETHER // 100] * users)
    desk.oracle.finalize()
    desk.approve(desk.operator, 2**256 - 1)
    tap.requests.clear()
    _tell("claim: one claimWithdrawalsTo", users, desk.send(dump(Builders(chain).claim(ids))), tap)


def _polls(desk: Desk, tap: Tap, chain: Chain) -> dict[int, int]:
    """RPC calls of one look at so many open withdrawals, half of them final, over many checkpoints."""
    first = int(desk.queue.getLastRequestId().call()) + 1
    found = {}
    for count in OPEN:
        while (last := int(desk.queue.getLastRequestId().call())) < first + count - 1:
            amounts = [1_000] * min(100, first + count - 1 - last)
            call: Any = desk.queue.requestWithdrawals(amounts, desk.operator)
            desk.do(call, desk.operator)
        for up_to in range(_final(desk) + FINAL_PER_REPORT, first + count // 2, FINAL_PER_REPORT):
            desk.oracle.finalize(up_to)
        tap.requests.clear()
        ids = list(range(first, first + count))
        for start in range(0, count, IDS_PER_CALL):
            read_statuses(chain, ids[start : start + IDS_PER_CALL], chain.block())
        found[count] = len(tap.calls())
        sys.stdout.write(
            f"{'poll of open withdrawals':<34}{count:>7}{'':>12}{len(tap.calls()):>11}{len(tap.requests):>15}\n"
        )
    return found


def _final(desk: Desk) -> int:
    return int(desk.queue.getLastFinalizedRequestId().call())


def _tell(what: str, users: int, receipt: Any, tap: Tap) -> float:
    each = float(receipt["gasUsed"]) / users
    sys.stdout.write(f"{what:<34}{users:>7}{each:>12,.0f}{len(tap.calls()):>11}{len(tap.requests):>15}\n")
    return each


if __name__ == "__main__":
    raise SystemExit(main())
