"""Books against chain: a real ledger over HTTP, every line to the wei."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from apps.common.wei import ETHER
from apps.devnet.deployment import set_balance
from tests.support.lido import PURSE_WEI, Desk
from tests.support.protocols import NOBODY, Books, House, make_house, running_ledger

SHAPE = ["id", "message_id", "block_number", "block_hash", "verdict", "reason", "lines", "created_at"]
LINES = [
    "eth", "unidentified", "lido", "shares", "nfts", "books", "audit", "custody_eth", "ledger_total_staked",
    "lido_pooled_ether",
]  # fmt: skip


@dataclass
class Pair:
    """A desk and its books, kept together by hand as the flows would."""

    house: House
    books: Books
    ledger_url: str
    done: int = 0

    @property
    def desk(self) -> Desk:
        return self.house.desk

    def book(self, kind: str, wei: int, user_id: str | None = None) -> None:
        if wei:
            self.done += 1
            self.books.post(f"m:{self.done}", kind, wei, user_id)

    def book_gas(self, receipt: Any) -> None:
        self.book("gas_spent", receipt["gasUsed"] * receipt["effectiveGasPrice"])

    def stake(self, wei: int) -> None:
        """One user's stake: reserved, sent, confirmed, its dust and gas booked."""
        self.book("stake_reserve", wei, "ann")
        before = self.desk.steth(self.desk.operator)
        self.book_gas(self.desk.submit(self.desk.operator, wei))
        self.book("stake_confirm", wei, "ann")
        self.book("rounding_loss", wei - (self.desk.steth(self.desk.operator) - before))

    def reconcile(self, message_id: str, **body: Any) -> dict[str, Any]:
        answer = self.house.post("/v1/reconciliations", {"message_id": message_id, **body})
        assert answer.status_code == 201, answer.get_json()
        found: dict[str, Any] = answer.get_json()
        return found

    def drifts(self, message_id: str, **body: Any) -> dict[str, int]:
        """Names of the lines that are not ok, with their drift; the verdict must agree."""
        found = self.reconcile(message_id, **body)
        bad = {line["name"]: int(line["drift_wei"]) for line in found["lines"] if not line["ok"]}
        assert found["verdict"] == ("drift" if bad else "ok")
        return bad


@pytest.fixture
def ledger_url(make_database: Callable[[str], str]) -> str:
    return make_database("ledger")


@pytest.fixture
def pair(desk: Desk, database_url: str, ledger_url: str) -> Iterator[Pair]:
    """All ETH of both addresses deposited by ann, but for one of gas money."""
    with running_ledger(ledger_url) as books:
        pair = Pair(make_house(desk, database_url, ledger_url=books.url), books, ledger_url)
        pair.book("deposit", desk.balance(desk.custody) + desk.balance(desk.operator) - ETHER, "ann")
        pair.book("gas_float", ETHER)
        desk.rpc("evm_increaseTime", 60)  # blocks from here on are later than the deposit
        desk.oracle.mine()
        yield pair


def line(run: dict[str, Any], name: str) -> dict[str, Any]:
    return next(item for item in run["lines"] if item["name"] == name)


def test_reconcile__a_whole_life_booked__ok_on_every_line(pair: Pair) -> None:
    desk = pair.desk
    pair.stake(100 * ETHER)
    assert pair.drifts("r:1") == {}
    before = desk.steth(desk.operator)
    desk.oracle.rebase(30 * ETHER)
    reward = int(pair.house.get("/v1/lido/rebases")["items"][0]["reward_wei"])
    assert reward == desk.steth(desk.operator) - before
    pair.book("reward_accrue", reward)
    assert pair.drifts("r:2") == {}
    pair.book("unstake_start", 40 * ETHER, "ann")
    pair.book_gas(desk.approve(desk.operator, 40 * ETHER))
    before = desk.steth(desk.operator)
    request = desk.queue.requestWithdrawals([40 * ETHER], desk.operator)
    pair.book_gas(desk.do(request, desk.operator))
    pair.book("rounding_loss", before - 40 * ETHER - desk.steth(desk.operator))
    assert pair.drifts("r:3", rewards={"owed_wei": str(reward), "weight_wei": str(60 * ETHER)}) == {}
    desk.oracle.finalize()
    receipt = desk.claim(desk.operator, [1], desk.custody)
    pair.book_gas(receipt)
    paid = desk.events("WithdrawalClaimed", receipt)[0]["amountOfETH"]
    pair.book("unstake_settle", paid, "ann")
    pair.book("unstake_shortfall", 40 * ETHER - paid, "ann")
    run = pair.reconcile("r:4")
    finalized = pair.house.get("/v1/lido/rebases")["items"][-1]
    bad = [item for item in run["lines"] if not item["ok"]]
    # The report that finalized carried no reward, but burning floored shares left a wei or so of it.
    assert [item["name"] for item in bad] == (["lido"] if finalized["reward_wei"] != "0" else [])
    pair.book("reward_accrue", int(finalized["reward_wei"]))
    assert pair.drifts("r:5") == {}


def test_reconcile__shape__lines_and_recorded_values(pair: Pair) -> None:
    desk = pair.desk
    pair.stake(5 * ETHER)
    run = pair.reconcile("r:1")
    assert list(run) == SHAPE
    assert [item["name"] for item in run["lines"]] == LINES
    head = desk.rpc("eth_getBlockByNumber", "latest", False)
    assert (run["block_number"], run["block_hash"]) == (int(head["number"], 16), head["hash"])
    assert (run["verdict"], run["reason"]) == ("ok", None)
    assert line(run, "custody_eth")["found_wei"] == str(desk.balance(desk.custody))
    assert line(run, "ledger_total_staked")["found_wei"] == str(5 * ETHER)
    assert line(run, "lido_pooled_ether")["found_wei"] == str(desk.lido.getTotalPooledEther().call())
    assert set(run["lines"][0]) == {"name", "expected_wei", "found_wei", "drift_wei", "tolerance_wei", "ok"}


def test_reconcile__ether_nobody_posted__unidentified_and_ok(pair: Pair) -> None:
    pair.desk.oracle.fund(pair.desk.custody, 3 * ETHER)
    run = pair.reconcile("r:1")
    assert run["verdict"] == "ok"
    assert line(run, "unidentified")["found_wei"] == str(3 * ETHER)
    assert line(run, "eth")["drift_wei"] == "0"


def test_reconcile__a_wei_of_ether_missing__drift(pair: Pair) -> None:
    custody = pair.desk.custody
    set_balance(pair.desk.web3, custody, pair.desk.balance(custody) - 1)
    pair.desk.oracle.mine()
    assert pair.drifts("r:1") == {"eth": -1}


def test_reconcile__deposit_posted_after_the_block__no_drift(pair: Pair) -> None:
    block = pair.desk.head()
    pair.desk.oracle.fund(pair.desk.custody, 2 * ETHER)
    pair.book("deposit", 2 * ETHER, "bob")
    # The node's clock runs ahead of the books' here: the deposit is put after the block by hand, the gas float before it.
    tamper(
        pair.ledger_url,
        "ALTER TABLE movements DISABLE TRIGGER USER",
        "UPDATE movements SET created_at = created_at + interval '1 day' WHERE user_id = 'bob'",
        "UPDATE movements SET created_at = created_at - interval '1 day' WHERE user_id IS NULL",
    )
    run = pair.reconcile("r:1", block=block)
    assert run["verdict"] == "ok"
    assert line(run, "unidentified")["found_wei"] == "0"
    assert int(line(run, "eth")["expected_wei"]) == pair.desk.balance(pair.desk.operator) + PURSE_WEI


def test_reconcile__ledgers_clock_an_hour_behind_the_chains__a_deposit_after_the_block_is_no_drift(pair: Pair) -> None:
    """Two hosts' clocks need not agree: what was posted a moment ago seems an hour older than the block."""
    pair.desk.rpc("evm_increaseTime", 3600)
    pair.desk.oracle.mine()
    block = pair.desk.head()
    pair.desk.rpc("evm_increaseTime", 60)
    pair.desk.oracle.fund(pair.desk.custody, 2 * ETHER)
    pair.book("deposit", 2 * ETHER, "bob")
    assert pair.drifts("r:1", block=block) == {}


def test_reconcile__unbooked_reward__lido_drift_until_booked(pair: Pair) -> None:
    pair.stake(100 * ETHER)
    pair.desk.oracle.rebase(30 * ETHER)
    reward = int(pair.house.get("/v1/lido/rebases")["items"][0]["reward_wei"])
    assert pair.drifts("r:1") == {"lido": reward}
    pair.book("reward_accrue", reward)
    assert pair.drifts("r:2") == {}


def test_reconcile__slashing__negative_drift_until_booked(pair: Pair) -> None:
    pair.stake(100 * ETHER)
    pair.desk.oracle.rebase(-30 * ETHER)
    loss = int(pair.house.get("/v1/lido/rebases")["items"][0]["reward_wei"])
    assert loss < 0
    assert pair.drifts("r:1") == {"lido": loss}
    pair.book("reward_drop", -loss)
    assert pair.drifts("r:2") == {}


def test_reconcile__steth_from_a_stranger__lido_drift_until_booked_as_donation(pair: Pair) -> None:
    desk = pair.desk
    desk.oracle.stranger_transfer(desk.operator, ETHER)
    held = desk.steth(desk.operator)
    assert pair.drifts("r:1") == {"lido": held}
    pair.book("donation", held)
    assert pair.drifts("r:2") == {}


def test_reconcile__nft_moved_away__nfts_drift(pair: Pair) -> None:
    desk = pair.desk
    pair.stake(100 * ETHER)
    desk.request(desk.operator, [ETHER, 2 * ETHER])
    assert "nfts" not in pair.drifts("r:1")
    desk.do(desk.queue.transferFrom(desk.operator, desk.user, 2), desk.operator)
    assert pair.drifts("r:2")["nfts"] == -2 * ETHER


def test_reconcile__shares_from_before_the_history__shares_drift(
    pair: Pair, make_database: Callable[[str], str]
) -> None:
    desk = pair.desk
    pair.stake(10 * ETHER)
    late = make_house(desk, make_database("protocols"), ledger_url=pair.books.url, start_block=desk.head())
    other = Pair(late, pair.books, pair.ledger_url)
    assert other.drifts("r:1") == {"shares": desk.shares(desk.operator)}


def test_reconcile__rewards_owe_another_sum__named_lines(pair: Pair) -> None:
    pair.stake(10 * ETHER)
    rewards = {"owed_wei": "-5", "weight_wei": str(10 * ETHER - 1)}
    assert pair.drifts("r:1", rewards=rewards) == {"rewards": 5, "weight": 1}


def test_reconcile__a_balance_tampered_with__audit_drift(pair: Pair) -> None:
    asleep = "ALTER TABLE balances DISABLE TRIGGER ALL"  # the database itself would refuse
    tamper(pair.ledger_url, asleep, "UPDATE balances SET available_wei = available_wei - 1 WHERE user_id = 'ann'")
    bad = pair.drifts("r:1")
    assert bad["audit"] >= 1
    assert bad["books"] == -1


def test_reconcile__custody_is_the_operator__its_ether_once(desk: Desk, database_url: str, ledger_url: str) -> None:
    with running_ledger(ledger_url) as books:
        house = make_house(desk, database_url, ledger_url=books.url, custody_address=desk.operator)
        pair = Pair(house, books, ledger_url)
        pair.book("deposit", desk.balance(desk.operator), "ann")
        desk.rpc("evm_increaseTime", 60)
        desk.oracle.mine()
        run = pair.reconcile("r:1")
    assert (run["verdict"], line(run, "unidentified")["found_wei"]) == ("ok", "0")


def test_reconcile__block__the_chain_of_then_and_none_above_the_horizon(pair: Pair) -> None:
    desk = pair.desk
    block, pooled = desk.head(), desk.lido.getTotalPooledEther().call()
    desk.oracle.stranger_submit(ETHER)
    run = pair.reconcile("r:1", block=block)
    assert (run["block_number"], line(run, "lido_pooled_ether")["found_wei"]) == (block, str(pooled))
    answer = pair.house.post("/v1/reconciliations", {"message_id": "r:2", "block": desk.head() + 1})
    assert (answer.status_code, list(answer.get_json()["errors"])) == (422, ["block"])
    pair.reconcile("r:2", block=desk.head())


def test_reconcile__replayed__same_bytes_and_another_body_refused(pair: Pair) -> None:
    body = {"message_id": "r:1", "rewards": {"owed_wei": "0", "weight_wei": "0"}}
    first = pair.house.post("/v1/reconciliations", body)
    pair.desk.oracle.fund(pair.desk.custody, ETHER)
    again = pair.house.post("/v1/reconciliations", body)
    assert (first.status_code, again.status_code) == (201, 200)
    assert (again.data, again.headers["Idempotent-Replay"]) == (first.data, "true")
    other = pair.house.post("/v1/reconciliations", {"message_id": "r:1", "block": 1})
    assert (other.status_code, other.get_json()["code"]) == (422, "message_id_reused")
    assert sorted(other.get_json()["errors"]) == ["block", "rewards"]


def test_reconcile__ledger_down__503_and_the_id_stays_free(pair: Pair) -> None:
    alone = make_house(pair.desk, pair.house.database_url, ledger_url=NOBODY)
    answer = alone.post("/v1/reconciliations", {"message_id": "r:1"})
    assert (answer.status_code, answer.get_json()["code"]) == (503, "upstream_unavailable")
    assert pair.reconcile("r:1")["verdict"] == "ok"


def test_reconciliations__list__newest_first_paged_and_by_verdict(pair: Pair) -> None:
    for number in range(3):
        pair.reconcile(f"ok:{number}")
    set_balance(pair.desk.web3, pair.desk.custody, 0)
    pair.desk.oracle.mine()
    pair.reconcile("bad:0")
    get = pair.house.get
    first = get("/v1/reconciliations", limit=2)
    rest = get("/v1/reconciliations", limit=2, after=first["next"])
    names = [item["message_id"] for item in [*first["items"], *rest["items"]]]
    assert (names, rest["next"]) == (["bad:0", "ok:2", "ok:1", "ok:0"], None)
    assert [item["message_id"] for item in get("/v1/reconciliations", verdict="drift")["items"]] == ["bad:0"]
    assert get("/v1/reconciliations", verdict="error")["items"] == []
    assert pair.house.ask("/v1/reconciliations", verdict="fine").status_code == 422


def tamper(url: str, *statements: str) -> None:
    """Change the books behind the ledger's back; the last statement must hit one row."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg2://"))
    with engine.begin() as connection:
        hit = [connection.execute(text(statement)).rowcount for statement in statements]
    engine.dispose()
    assert hit[-1] == 1
