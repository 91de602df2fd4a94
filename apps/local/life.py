"""One whole staking life, step by step: what the demo shows, and what the walkthrough prints."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from apps.clients.base import Json
from apps.common.wei import ETHER, format_ether
from apps.local.bff import Bff
from apps.pool.states import RequestStatus

USERS = ("alice", "bob", "carol", "dave")
DEPOSITS = {"alice": 5 * ETHER, "bob": 3 * ETHER, "carol": 1500 * ETHER, "dave": 2 * ETHER}
FOUND_LATER = "bob"  # whose deposit the BFF finds in the list of what nobody has posted
STAKES = {"alice": 2 * ETHER, "bob": 15 * ETHER // 10, "carol": 1400 * ETHER, "dave": 7 * ETHER // 10}
UNSTAKES: dict[str, int | str] = {"alice": ETHER // 2, "carol": 1100 * ETHER}
PAYOUT_WEI = ETHER // 4
PAUSED_STAKE_WEI = ETHER // 5
# The oracle has ETH for the first of these only.
PARTLY_PAID = {"alice": 4 * ETHER // 10, "bob": 6 * ETHER // 10}
# A well-known address that nobody's key controls in this demo: dave's own wallet.
WALLET = "0x00000000000000000000000000000000da7eD1Ed"


@dataclass(frozen=True)
class Step:
    """A part of the life: its title, what it does for whom, and the function that does it and says what came out."""

    title: str
    story: str
    run: Callable[[], list[str]]


@dataclass
class Life:
    """The life of one run; `tag` keeps its names apart from those of other runs on the same stack."""

    bff: Bff
    tag: str = ""
    disturb: Callable[[], None] = field(default=lambda: None)

    def user(self, name: str) -> str:
        return f"{name}{self.tag}"

    def users(self) -> list[str]:
        return [self.user(name) for name in USERS]

    def steps(self) -> Iterator[Step]:
        yield Step(
            "Deposits",
            "Users send ETH to custody; the BFF sees it arrive and posts one `deposit` each at the ledger. Bob's it finds among "
            "what nobody has posted, and books it by the hash of its transaction.",
            self._deposit,
        )
        yield Step(
            "Stakes",
            "Each user asks for a stake at the pool. The ledger reserves the ETH, the batching task puts the requests into "
            "batches, and each batch becomes one `submit` on chain. When its log is deep enough, the walk books it.",
            self._stake,
        )
        yield Step(
            "A rebase",
            "Lido's oracle reports rewards for the whole protocol. The walk meets the report, works out what the operator's "
            "shares gained, and accrues it once; every position now has a pending reward.",
            self._gain,
        )
        yield Step(
            "A reward claim",
            "Bob compounds: his whole-wei pending reward moves into his stake, in the index and in the ledger.",
            self._claim,
        )
        yield Step(
            "A pause",
            "Lido pauses staking. Dave's stake is not lost and not refused: it waits in the queue, says why and when it is "
            "tried again, and goes on once Lido resumes.",
            self._pause,
        )
        yield Step(
            "Unstakes",
            "Alice and Carol ask for their ETH back. One `requestWithdrawals` carries both; Carol's 1100 ETH are split at "
            "Lido's maximum of 1000 stETH, so three withdrawal NFTs come back.",
            self._unstake,
        )
        yield Step(
            "Finalization and claim",
            "The oracle finalizes the withdrawals. Claim polling sees it, one transaction claims all three NFTs to custody, "
            "and the walk pays each request what its log says.",
            self._finalize,
        )
        yield Step(
            "A partial finalization",
            "Alice and Bob leave with a part, and the oracle has ETH for the first of them only: Alice is paid, Bob waits for "
            "the next report.",
            self._finalize_partly,
        )
        yield Step(
            "A slashing",
            "The protocol loses ETH. The loss is borne pro rata by everybody's stake and settled at once: it comes off the "
            "staked balances, wei by wei.",
            self._slash,
        )
        yield Step(
            "A payout",
            "Dave takes ETH home, to a wallet that is among his payout addresses: the ledger moves it to `@payouts`, the relayer "
            "sends it from custody, and the walk books `payout_paid` in the block of the transfer.",
            self._pay_out,
        )
        yield Step(
            "Reconciliation",
            "At the walk's block, the books must equal the chain to the wei.",
            self._reconcile,
        )

    def _deposit(self) -> list[str]:
        with ThreadPoolExecutor(max_workers=len(DEPOSITS)) as users:  # who do not wait for each other
            made = [
                users.submit(
                    self.bff.deposit_by_hash if name == FOUND_LATER else self.bff.deposit,
                    self.user(name),
                    amount,
                    f"deposit:{self.user(name)}:1",
                )
                for name, amount in DEPOSITS.items()
            ]
        for deposit in made:
            deposit.result()
        return [f"{self.user(name)} deposited {format_ether(amount)}" for name, amount in DEPOSITS.items()]

    def _stake(self) -> list[str]:
        pool = self.bff.clients.pool
        made = [pool.stake(f"stake:{self.user(name)}:1", self.user(name), amount) for name, amount in STAKES.items()]
        self.disturb()
        done = self.bff.finish(made)
        batches = {item["batch_id"] for item in done}
        hashes = sorted(
            {sent["tx_hash"] for item in done for sent in item["transactions"] if sent["purpose"] == "submit"}
        )
        return [
            f"{len(done)} requests completed in {len(batches)} batch(es), {len(hashes)} submit transaction(s)",
            *[f"submit {tx_hash}" for tx_hash in hashes],
        ]

    def _gain(self) -> list[str]:
        pooled = self.bff.clients.protocols.state().total_pooled_ether_wei
        block = self.bff.rebase(pooled // 1000)
        return [f"rebase of +0.1 % at block {block}", *self._pending()]

    def _claim(self) -> list[str]:
        user = self.user("bob")
        (done,) = self.bff.finish([self.bff.clients.pool.claim_reward(f"reward-claim:{user}:1", user)])
        return [f"{user} compounded {done['settled_wei']} wei"]

    def _pause(self) -> list[str]:
        user, pool = self.user("dave"), self.bff.clients.pool
        self.bff.oracle.pause_staking()
        try:
            made = pool.stake(f"stake:{user}:2", user, PAUSED_STAKE_WEI)
            waiting = self.bff.wait(
                "the request to say why it waits",
                lambda: pool.request(made["id"]),
                lambda found: (found["reason"] or {}).get("code") == "staking_paused",
            )
        finally:
            self.bff.oracle.resume_staking()
        (done,) = self.bff.finish([made])
        return [
            f"{user} waits: {waiting['reason']['detail']} Next: {waiting['next']['step']} at {waiting['next']['due_at']}",
            f"resumed; {user}'s stake of {done['settled_wei']} wei is {done['status']}",
        ]

    def _unstake(self) -> list[str]:
        pool = self.bff.clients.pool
        made = [pool.unstake(f"unstake:{self.user(name)}:1", self.user(name), wei) for name, wei in UNSTAKES.items()]
        self.disturb()
        waiting = self.bff.finish(made, RequestStatus.WAITING)
        return [
            f"{item['user_id']}: withdrawal NFT {found['withdrawal_id']} of {found['amount_wei']} wei"
            for item in waiting
            for found in item["withdrawals"]
        ]

    def _finalize(self) -> list[str]:
        open_ = [
            request
            for name in UNSTAKES
            for request in self.bff.clients.pool.requests(user_id=self.user(name), kind="unstake")["items"]
        ]
        report = self.bff.oracle.finalize()
        done = self.bff.finish(open_)
        return [f"finalized up to NFT {report.finalized_up_to} at block {report.block_number}"] + [
            f"{item['user_id']} was paid {item['settled_wei']} wei" for item in done
        ]

    def _finalize_partly(self) -> list[str]:
        pool = self.bff.clients.pool
        made = [pool.unstake(f"unstake:{self.user(name)}:2", self.user(name), wei) for name, wei in PARTLY_PAID.items()]
        first, second = self.bff.finish(made, RequestStatus.WAITING)
        report = self.bff.oracle.finalize_within(PARTLY_PAID["alice"])
        (paid,) = self.bff.finish([first])
        left = pool.request(second["id"])
        lines = [
            f"finalized up to NFT {report.finalized_up_to} at block {report.block_number}",
            f"{paid['user_id']} was paid {paid['settled_wei']} wei; {left['user_id']} is still {left['status']}",
        ]
        self.bff.oracle.finalize()
        (done,) = self.bff.finish([second])
        return [*lines, f"next report: {done['user_id']} was paid {done['settled_wei']} wei"]

    def _slash(self) -> list[str]:
        before = self._staked()
        pooled = self.bff.clients.protocols.state().total_pooled_ether_wei
        block = self.bff.rebase(-pooled // 2000)
        after = self.bff.wait("the loss to be booked", self._staked, lambda found: all(
            self._settled(user, found[user]) for user in found))  # fmt: skip
        lines = [f"{user}: {after[user] - before[user]} wei" for user in before]
        return [f"rebase of -0.05 % at block {block}", *lines]

    def _pay_out(self) -> list[str]:
        user = self.user("dave")
        before = self.bff.eth_of(WALLET)
        done = self.bff.pay_out(user, WALLET, PAYOUT_WEI, f"payout:{user}:1")
        (sent,) = done["transactions"]
        return [f"{WALLET} received {self.bff.eth_of(WALLET) - before} wei in {sent['tx_hash']}"]

    def _reconcile(self) -> list[str]:
        run = self.bff.reconcile()
        return [f"verdict {run.verdict} at block {run.block_number}"] + [
            f"{line.name}: expected {line.expected_wei}, found {line.found_wei}, drift {line.drift_wei}"
            for line in run.lines
        ]

    def _pending(self) -> list[str]:
        return [f"{user}: pending {self.bff.portfolio(user)['position']['pending_wei']} wei" for user in self.users()]

    def _staked(self) -> dict[str, int]:
        return {user: int(self.bff.portfolio(user)["balance"]["staked_wei"]) for user in self.users()}

    def _settled(self, user: str, staked_wei: int) -> bool:
        position: Json = self.bff.portfolio(user)["position"]
        return int(position["staked_wei"]) == staked_wei
