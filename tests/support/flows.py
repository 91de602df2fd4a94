"""All five services in this process on one node, and their flows driven by hand: nothing runs unless a test says so.

The services are the real ones over real HTTP, the steps are the real ones; only worker, beat and broker are left out.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import func, select, text, update

from apps.clients.ledger import LedgerClient
from apps.clients.shapes.pool import NewRewardClaim, NewStake, NewUnstake
from apps.common.database import make_engine, transaction
from apps.common.settings import normalise_database_url
from apps.common.shapes import dump
from apps.devnet.deployment import set_balance
from apps.flow.lease import acquire
from apps.flow.runner import run
from apps.pool.context import PoolContext, make_context
from apps.pool.flows.batches import BatchFlow
from apps.pool.flows.batching import open_batches
from apps.pool.flows.requests import run_request
from apps.pool.flows.withdrawal_claim import poll_open
from apps.pool.look import Look
from apps.pool.models import Batch, Request, Walk, Withdrawal
from apps.pool.reads import PoolReads
from apps.pool.reconcile.run import reconcile
from apps.pool.service import PoolService
from apps.pool.settings import PoolSettings
from apps.pool.states import RequestKind
from apps.pool.walk.run import walk_pool
from apps.protocols import create_app as create_protocols
from apps.rewards import create_app as create_rewards
from apps.rewards.settings import RewardsSettings
from relayer import create_app as create_relayer
from relayer.api.service import RelayerService
from relayer.context import RelayerContext
from relayer.lifecycle.pump import pump_once
from relayer.signing.signers import parse_keys
from relayer.signing.transactions import Keyring
from relayer.store.models import Message
from relayer.store.states import FINAL
from tests.support.lido import PURSE_WEI, Desk
from tests.support.protocols import KEY, POOL, make_settings, running_ledger, serving
from tests.support.raw import raw
from tests.support.relayer import OPERATOR_KEY
from tests.support.relayer import make_settings as make_relayer_settings

UNDER_WAY = (
    "reserving", "settling", "queued", "batched", "submitting", "confirming", "requesting", "claiming", "sending", "booking",
)  # fmt: skip
DEAD_BROKER = "redis://127.0.0.1:1/0"

NEW_REQUESTS = {
    RequestKind.STAKE: NewStake,
    RequestKind.UNSTAKE: NewUnstake,
    RequestKind.REWARD_CLAIM: NewRewardClaim,
}


@dataclass
class Flows:
    """One pool, its operator (who is custody too) holding `PURSE_WEI` of gas money that the books know of."""

    desk: Desk
    context: PoolContext
    relayer: RelayerContext
    service: PoolService
    reads: PoolReads
    databases: dict[str, str]
    made: int = field(default=0)

    @property
    def ledger(self) -> LedgerClient:
        return self.context.ledger

    def deposit(self, user: str, wei: int) -> None:
        """A user's ETH arrives, and the company posts it."""
        self.made += 1
        self.desk.oracle.fund(self.context.settings.custody_address or self.desk.operator, wei)
        self.ledger.post_movement(f"deposit:{self.made}", "deposit", POOL, user, wei)

    def ask(self, kind: str, user: str, amount_wei: int | str | None = None) -> dict[str, Any]:
        """A request at the pool, as the BFF makes one; raises what it is refused with."""
        self.made += 1
        wanted = {"user_id": user, "pool_id": POOL} | ({} if amount_wei is None else {"amount_wei": amount_wei})
        body = NEW_REQUESTS[RequestKind(kind)](**wanted)  # unread, so that the flows meet what no body could hold
        return dump(self.service.create(RequestKind(kind), f"{kind}:{self.made}", body)[0])

    def stake(self, user: str, wei: int) -> dict[str, Any]:
        """Deposit and stake, to the end."""
        self.deposit(user, wei)
        made = self.ask("stake", user, wei)
        self.settle()
        return self.request(made)

    def stakes(self, amounts: Mapping[str, int]) -> None:
        """Deposit and stake for several users at once, to the end."""
        for user, wei in amounts.items():
            self.deposit(user, wei)
            self.ask("stake", user, wei)
        self.settle()

    def by_hand(self, call: Any, value_wei: int = 0) -> Any:
        """The operator's key used outside the relayer, gas and nonce given back, for the relayer would rightly halt."""
        desk = self.desk
        nonce = desk.web3.eth.get_transaction_count(desk.operator)  # type: ignore[arg-type]
        receipt = desk.do(call, desk.operator, value_wei)
        desk.rpc("anvil_setNonce", desk.operator, hex(nonce))
        spent = receipt["gasUsed"] * receipt["effectiveGasPrice"]
        set_balance(desk.web3, desk.operator, desk.balance(desk.operator) + spent)
        return receipt

    def request(self, made: dict[str, Any]) -> dict[str, Any]:
        return dump(self.reads.request(made["id"]))

    def position(self, user: str) -> Any:
        return raw(self.context.rewards).position(POOL, user)

    def balance(self, user: str) -> Any:
        return raw(self.ledger).balance(POOL, user)

    def walk(self) -> Walk:
        with transaction(self.context.sessions) as session:
            return session.scalars(select(Walk).where(Walk.id == POOL)).one()

    # ---- one turn of each wheel ----

    def requests(self) -> int:
        return self._each(Request, lambda row: run_request(self.context, row))

    def batching(self) -> int:
        with transaction(self.context.sessions) as session:
            session.execute(update(Request).where(Request.status == "queued").values(eligible_at=func.now()))
        return open_batches(self.context, POOL, self.context.protocols.state())

    def batches(self) -> int:
        return self._each(Batch, lambda row: run(BatchFlow(self.context), row))

    def pump(self) -> None:
        pump_once(self.relayer)

    def walking(self) -> int:
        return walk_pool(self.context, POOL)

    def claims(self) -> int:
        """Look at the open NFTs, as if the pauses after failed claims were over."""
        with transaction(self.context.sessions) as session:
            session.execute(update(Withdrawal).values(claim_after=None))
        return poll_open(self.context)

    def reconcile(self, *, at_head: bool = True) -> dict[str, Any]:
        """A reconciliation at the head, or wherever the walk stands: it waits for transactions that are under way. It closes a
        block when a later one is there."""
        self.desk.rpc("evm_increaseTime", 3600)  # later than every posted deposit, whatever the node's clock says
        self.desk.oracle.mine()
        self.walking()
        assert reconcile(self.context, POOL) is not None, self.walk().reason
        run: dict[str, Any] = raw(self.context.protocols).reconciliations(limit=1)["items"][0]
        assert run["block_number"] == self.desk.head() or not at_head
        return run

    def drifts(self, *, at_head: bool = True) -> dict[str, int]:
        """Every line of a reconciliation that differs, the surplus included."""
        run = self.reconcile(at_head=at_head)
        return {line["name"]: int(line["drift_wei"]) for line in run["lines"] if line["drift_wei"] != "0"}

    def turn(self) -> None:
        """Every wheel once, but for those that have nothing to do."""
        self.requests()
        if self._any(Request.status == "queued"):
            self.batching()
        self.batches()
        if self._at_the_relayer():
            self.pump()
            self.pump()
        if self._walked() < self.desk.head():
            self.walking()

    def settle(self) -> None:
        """Turn until nothing is under way but what waits for Lido, and the last block is walked."""
        for number in range(40):
            self.turn()
            if number > 1 and self._walked() == self.desk.head():
                self.desk.oracle.mine()  # as on any chain: the walk closes a block when a later one is there
            if not self._under_way():
                break
        else:
            raise AssertionError(f"still under way: {self._under_way()}, walk: {self.walk().reason}")
        assert self.walk().status == "walking", self.walk().reason

    def _under_way(self) -> list[Any]:
        with transaction(self.context.sessions) as session:
            rows = session.execute(
                select(Request.kind, Request.status, Request.reason).where(Request.status.in_(UNDER_WAY))
            ).all()
            open_ = select(Batch.kind, Batch.status, Batch.reason).where(Batch.status.not_in(("completed", "failed")))
            return [*rows, *session.execute(open_).all()]

    def _any(self, condition: Any) -> bool:
        with transaction(self.context.sessions) as session:
            return session.scalar(select(Request.id).where(condition).limit(1)) is not None

    def _walked(self) -> int:
        with transaction(self.context.sessions) as session:
            return int(session.scalar(select(Walk.cursor_block).where(Walk.id == POOL)) or 0)

    def _at_the_relayer(self) -> bool:
        with transaction(self.relayer.sessions) as session:
            return session.scalar(select(Message.message_id).where(Message.status.not_in(FINAL)).limit(1)) is not None

    def _each(self, model: Any, step: Callable[[Any], object]) -> int:
        """Run every row that waits for a time, as if its time had come."""
        with transaction(self.context.sessions) as session:
            waiting = update(model).where(model.next_run_at.is_not(None))
            found: Any = session.execute(waiting.values(next_run_at=func.now() - text("interval '1 s'")))
        if found.rowcount == 0:
            return 0
        rows = acquire(self.context.sessions, model, self.context.settings.lease_sec, limit=100)
        for row in rows:
            step(row)
        return len(rows)


@contextmanager
def running_flows(desk: Desk, make_database: Callable[[str], str], **changes: Any) -> Iterator[Flows]:
    """The whole house on a desk. `changes` are settings of the pool; `reward_fee_bps` is the rewards service's, `relayer`
    holds the relayer's, and `custody` is an address whose key is elsewhere."""
    operator = desk.operator
    custody = changes.pop("custody", operator)
    relayer_changes = changes.pop("relayer", {})
    url = {name: make_database(name) for name in ("ledger", "rewards", "protocols", "pool", "relayer")}
    base: dict[str, Any] = {"app_env": "test", "internal_keys": (KEY,), "pool_id": POOL}
    with ExitStack() as stack:
        books = stack.enter_context(running_ledger(url["ledger"]))
        fee = changes.pop("reward_fee_bps", 0)
        rewards = create_rewards(
            RewardsSettings(
                **base, http_port=8103, database_url=normalise_database_url(url["rewards"]), reward_fee_bps=fee
            )
        )
        protocols = create_protocols(
            make_settings(desk, url["protocols"], custody_address=custody, ledger_url=books.url)
        )
        relayer_settings = make_relayer_settings(
            url["relayer"],
            (desk.rpc_url,),
            confirmations=1,
            operator_address=operator,
            steth_address=desk.deployment.steth,
            queue_address=desk.deployment.withdrawal_queue,
            **{
                "keyring": Keyring([parse_keys(OPERATOR_KEY)]),
                "custody_address": custody,
                "max_value_per_day_wei": 10**30,
                **relayer_changes,
            },
        )
        relayer = create_relayer(relayer_settings)
        relayer_context = relayer.extensions["service"].context
        relayer.extensions["service"] = RelayerService(
            relayer_context, make_engine(relayer_settings.database_url, autocommit=True), wake=lambda: None
        )
        settings = PoolSettings(
            **base,
            broker_url=DEAD_BROKER,
            http_port=8104,
            database_url=normalise_database_url(url["pool"]),
            ledger_url=books.url,
            rewards_url=stack.enter_context(serving(rewards)),
            protocols_url=stack.enter_context(serving(protocols)),
            relayer_url=stack.enter_context(serving(relayer)),
            relayer_api_key="",
            http_timeout_sec=30.0,
            custody_address=custody,
            operator_address=operator,
            stake_batch_threshold_wei=1,
            stake_batch_max_wait_sec=0.0,
            unstake_batch_threshold_wei=1,
            unstake_batch_max_wait_sec=0.0,
            reward_source="share_rate",
            pause_on_drift=False,
            ops_four_eyes=False,
            webhook_secret_keys=("a-key-of-the-tests-and-of-nobody-else",),
            webhook_allow_private=True,
            payout_address_delay_sec=0,
        )
        settings = replace(settings, **changes)
        context = replace(make_context(settings, lambda _task, _row_id: None), look=Look(0.0))
        set_balance(desk.web3, operator, PURSE_WEI)
        desk.oracle.mine()
        books.post("gas", "gas_float", PURSE_WEI)
        yield Flows(desk, context, relayer_context, PoolService(context), PoolReads(context), url)
