"""The long proof: whole lives while everybody is rude at once. A node that refuses, lags and leaves things out; callers that
send half; a beat whose clock is wrong and jumps; a database that takes no writes for a while; a stranger with gas; and
requests that can never be served among those that can. What can complete does, what cannot says why, and no wei is off.
"""

import random
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from apps.common.shapes import dump
from apps.common.wei import ETHER
from apps.devnet.deployment import Deployment
from apps.devnet.oracle import Oracle
from apps.local.bff import Bff
from apps.local.checks import check_books
from apps.local.stack import Stack
from apps.local.supervision import Supervisor
from tests.support.anvil import start_anvil
from tests.support.lives import again_and_again, live
from tests.support.raw import raw
from tests.support.rude_database import RudeDatabase
from tests.support.rude_node import RudeNode, rude_node
from tests.support.shifted_clock import ShiftedClock
from tests.support.slow_client import besieged
from tests.support.stack import beside, running_stack
from tests.support.stranger import Stranger

USERS = 5
ROUNDS = 3
SETTINGS = {"CLAIM_POLL_INTERVAL_SEC": "2", "LOG_RANGE_BLOCKS": "50"}
# Each for a while, alone or with the next: name and options.
NODE_FAULTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("batch_limit", {"most": 10, "style": "object"}),
    ("batch_limit", {"most": 3, "style": "413"}),
    ("log_range", {"most": 5}),
    ("rate", {"every": 2}),
    ("rate", {"every": 3, "retry_after": 1}),
    ("broken", {"every": 3, "kind": "html"}),
    ("broken", {"every": 3, "kind": "garbage"}),
    ("broken", {"every": 4, "kind": "close"}),
    ("drop_log", {"times": 4}),
    ("no_logs", {"times": 3}),
    ("lag", {"every": 2, "blocks": 3}),
    ("pending", {"times": 1, "more": 1}),
    ("shuffled", {}),
    ("lose_items", {"every": 3}),
    ("missing", {"methods": ("eth_feeHistory",)}),
    ("response_limit", {"most": 20_000, "style": "items"}),
)
FAULT_SEC = 2.0
JUMPS_SEC = (-3600, 900, -20, 0)


@contextmanager
def rude_at_random(node: RudeNode, seed: int) -> Iterator[set[str]]:
    """One or two faults at a time, in an order from the seed; every third time none, so that something gets through."""
    order, struck = random.Random(seed), set[str]()

    def change() -> None:
        node.calm()
        for name, options in order.sample(NODE_FAULTS, order.choice((0, 1, 2))):
            node.rude(name, **options)
            struck.add(name)

    with again_and_again(FAULT_SEC, change):
        yield struck
    node.calm()


@contextmanager
def beat_with(clock: ShiftedClock, stack: Stack, directory: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The stack's beat is stopped, and one whose clock is wrong takes its place until the block ends."""
    supervisor = Supervisor(stack.home, stack.home.load())
    supervisor.stop_program("beat")
    with beside(stack, "beat", directory, clock) as process:
        yield process
    supervisor.launch("beat")


def ask_the_impossible(bff: Bff, steth: str) -> tuple[dict[str, Any], list[str]]:
    """A stake that the protocol will never take at once, and payouts that cannot be paid or must not be made."""
    bff.oracle.pause_staking()
    big = bff.wait("an answer", lambda: bff.clients.pool.stake("stake:whale", "whale", 80 * ETHER), bool)
    bff.oracle.set_stake_limit(50 * ETHER, 10)
    bff.oracle.resume_staking()
    plain = {"from": bff.custody, "data": "0x", "gas_limit": 21_000, "purpose": "payout"}
    payouts = []
    for number in range(70):  # more than a key may have under way: they would stand before everything else
        message = {"message_id": f"poor:{number}", "to": "0x" + "77" * 20, "value_wei": str(10**7 * ETHER), **plain}
        payouts.append(bff.wait("an answer", partial(bff.clients.relayer.post, "/v1/transactions", message), bool))
    refused = {"message_id": "into-lido", "to": steth, "value_wei": str(ETHER), **plain}
    bff.wait("an answer", lambda: bff.clients.relayer.post("/v1/transactions", refused), bool)
    return big, [str(sent["message_id"]) for sent in payouts]


@pytest.mark.prove
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1])
def test_life__everybody_rude_at_once__the_possible_completes_the_rest_says_why_and_no_wei_is_off(
    seed: int, tmp_path: Path
) -> None:
    with ExitStack() as world:
        chain = world.enter_context(start_anvil("--block-time", "1"))
        node = world.enter_context(rude_node(chain.url))
        limits = {f"MAX_{what}_PER_TX_WEI": str(10**9 * ETHER) for what in ("VALUE", "PAYOUT")}
        limits |= {f"MAX_{what}_PER_DAY_WEI": str(10**12 * ETHER) for what in ("VALUE", "PAYOUT")}
        stack = world.enter_context(running_stack({"ETH_RPC_URL": node.url, **SETTINGS, **limits}))
        bff = Bff(stack, timeout_sec=500)
        deployment = Deployment(**(stack.home.load().deployment or {}))
        bff.oracle = Oracle(chain.url, deployment)  # whoever reports has a node of their own
        users = [f"user-{number}" for number in range(USERS)]
        for user in users:
            bff.deposit(user, 100 * ETHER, f"deposit:{user}")
        bff.deposit("whale", 80 * ETHER, "deposit:whale")
        stranger = Stranger(chain.url, deployment, bff.operator, seed)
        stranger.prepare()
        database = RudeDatabase(stack.status()["database_urls"]["pool"])
        clock = ShiftedClock(tmp_path, -30)
        jumps = random.Random(seed)

        def take_no_writes() -> None:
            with database.read_only():
                threading.Event().wait(2)

        with ExitStack() as rude:
            beat = rude.enter_context(beat_with(clock, stack, tmp_path))
            struck = rude.enter_context(rude_at_random(node, seed))
            rude.enter_context(stranger.at_work())
            rude.enter_context(again_and_again(7.0, lambda: clock.shift(jumps.choice(JUMPS_SEC))))
            rude.enter_context(again_and_again(25.0, take_no_writes))
            for url in stack.status()["services"].values():
                rude.enter_context(besieged(urlsplit(url).port or 80, each=2))
            big, poor = ask_the_impossible(bff, deployment.steth)
            for turn in range(ROUNDS):
                live(bff, users, turn)
            assert beat.poll() is None
            # What cannot be done says why, while all others went past it.
            whale = bff.wait(
                "the whale's reason", lambda: bff.clients.pool.request(big["id"]), lambda found: found["reason"]
            )
            assert (whale["status"], whale["reason"]["code"]) == ("queued", "stake_above_limit")
        assert len(struck) >= 5
        assert len(stranger.done) >= 4
        relayer = bff.clients.relayer

        def why() -> set[tuple[str, str | None]]:
            found = [raw(relayer).transaction(name) or {} for name in poor]
            return {(str(one.get("status")), (one.get("reason") or {}).get("code")) for one in found}

        # Soon after the last rude answer their key may still be in doubt.
        bff.wait("the payouts' reason", why, lambda seen: seen == {("queued", "insufficient_funds")})
        sent = raw(relayer).transaction("into-lido") or {}
        assert (sent["status"], sent["reason"]["code"]) == ("rejected", "payout_target_refused")
        # The impossible is taken back, and nothing of it was lost.
        for name in poor:
            relayer.post(f"/v1/transactions/{name}/cancel", {})
        bff.clients.pool.post(f"/v1/requests/{big['id']}/cancel", {})
        bff.finish([big], "cancelled")
        assert bff.portfolio("whale")["balance"]["available_wei"] == str(80 * ETHER)
        walk = bff.clients.pool.get("/v1/walk", pool_id=bff.pool_id)
        assert (walk["status"], walk["halt"]) == ("walking", None)
        assert {signer["state"] for signer in raw(relayer).signers()} == {"active"}
        made = bff.clients.pool.requests(limit=200)["items"]
        assert {item["status"] for item in made} == {"completed", "cancelled"}
        assert len(made) == 1 + ROUNDS * (2 * USERS + len(users[::2]))
        assert [check for check in check_books(bff, [*users, "whale"]) if not check.ok] == []
        run = dump(bff.reconcile())
        assert (run["verdict"], {line["drift_wei"] for line in run["lines"]}) == ("ok", {"0"})
