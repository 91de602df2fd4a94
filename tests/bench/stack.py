"""``make bench NAME=stack``: the whole stack on this machine, from POST to completed. Figures, no assertions on time."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

from apps.clients.ledger import movement
from apps.clients.pool import PoolClient
from apps.common.wei import ETHER
from apps.local.bff import Bff
from tests.support.raw import raw
from tests.support.stack import running_stack

USERS = 500
CALLERS = 8
AMOUNT = ETHER // 10


def main() -> int:
    with running_stack({"STAKE_BATCH_THRESHOLD_WEI": str(10 * ETHER)}) as stack:
        bff = Bff(stack, timeout_sec=600)
        status = stack.status()
        users = [f"bench-{number}" for number in range(USERS)]
        bff.oracle.fund(bff.custody, USERS * AMOUNT)
        started = time.perf_counter()
        bff.clients.ledger.post_batch(
            [movement(f"deposit:{user}", "deposit", bff.pool_id, user, AMOUNT) for user in users]
        )
        _tell("deposits in one ledger batch", USERS, time.perf_counter() - started)

        def caller(number: int) -> list[str]:
            pool = PoolClient(status["services"]["pool"], status["internal_api_key"])
            return [str(pool.stake(f"stake:{user}", user, AMOUNT)["id"]) for user in users[number::CALLERS]]

        started = time.perf_counter()
        with ThreadPoolExecutor(CALLERS) as threads:
            made = [{"id": request_id} for ids in threads.map(caller, range(CALLERS)) for request_id in ids]
        _tell(f"POST /v1/stakes by {CALLERS} callers", USERS, time.perf_counter() - started)
        bff.wait(
            "all stakes to be completed",
            lambda: int(raw(bff.clients.ledger).totals(bff.pool_id)["staked_wei"]),
            lambda staked: staked == USERS * AMOUNT,
        )
        _tell("stakes from first POST to staked on chain and in the books", USERS, time.perf_counter() - started)
        bff.finish(made)
        batches = len(bff.clients.pool.batches(limit=200)["items"])
        sys.stdout.write(f"{'on-chain submits (batches)':<62} {batches:>8}\n")
    return 0


def _tell(what: str, count: int, seconds: float) -> None:
    sys.stdout.write(f"{what:<62} {count:>8} in {seconds:8.2f} s  {count / seconds:10.1f} / s\n")


if __name__ == "__main__":
    raise SystemExit(main())
