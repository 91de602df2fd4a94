"""A client generated from `docs/api` is enough to live a whole life with."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

import pytest

from apps.common.wei import ETHER
from tests.support.endpoints.world import World, new_world
from tests.support.generated_client import GeneratedClient, generated
from tests.support.lido import start_desk
from tests.support.protocols import KEY, serving

USER = "cas"
Clients = Mapping[str, GeneratedClient]


@pytest.fixture(scope="module")
def house(make_database: Callable[[str], str]) -> Iterator[World]:
    with start_desk() as desk, new_world(desk, make_database) as made:
        yield made


@pytest.fixture(scope="module")
def clients(house: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    directory = tmp_path_factory.mktemp("clients")
    with ExitStack() as stack:
        yield {
            service: stack.enter_context(generated(service, stack.enter_context(serving(app)), KEY, directory))
            for service, app in house.apps.items()
        }


def test_generated_client__whole_life__stakes_earns_and_is_paid(house: World, clients: Clients) -> None:
    ledger, pool, flows = clients["ledger"], clients["pool"], house.flows
    flows.desk.oracle.fund(flows.desk.operator, 10 * ETHER)
    deposit = {"message_id": "deposit:1", "kind": ledger_kind(ledger, "deposit"), "user_id": USER}
    ledger.call("ledger", "create_movement", body=ledger.model("new_movement", **deposit, amount_wei=str(10 * ETHER)))

    wanted = pool.model("new_stake", message_id="stake:1", user_id=USER, amount_wei=str(8 * ETHER))
    staked = pool.detailed("pool", "create_stake", body=wanted)
    again = pool.detailed("pool", "create_stake", body=wanted)
    assert (staked.status_code, again.status_code, again.headers["Idempotent-Replay"]) == (201, 200, "true")
    assert staked.headers["Location"] == f"/v1/requests/{staked.parsed.id}"
    flows.settle()
    assert pool.call("pool", "get_request", staked.parsed.id).status == "completed"

    flows.desk.oracle.rebase(1_000 * ETHER)
    flows.walking()
    pending = int(clients["rewards"].call("rewards", "get_position", USER).pending_wei)
    assert pending > 0
    claim = pool.model("new_reward_claim", message_id="claim:1", user_id=USER)
    assert pool.call("pool", "create_reward_claim", body=claim).kind == "reward_claim"
    flows.settle()

    unstake = pool.model("new_unstake", message_id="unstake:1", user_id=USER, amount_wei="max")
    asked = pool.call("pool", "create_unstake", body=unstake)
    flows.settle()
    waiting = pool.call("pool", "get_request", asked.id)
    (withdrawal,) = waiting.withdrawals
    assert (waiting.status, withdrawal.paid_wei) == ("waiting", None)
    flows.desk.oracle.finalize()
    flows.claims()
    flows.settle()
    done = pool.call("pool", "get_request", asked.id)
    assert (done.status, done.settled_wei) == ("completed", done.withdrawals[0].paid_wei)

    portfolio = pool.call("pool", "get_portfolio", USER)
    assert int(portfolio.balance.available_wei) == 2 * ETHER + int(done.settled_wei)
    assert int(done.settled_wei) == pytest.approx(8 * ETHER + pending, abs=10)
    events = pool.call("pool", "list_events", limit=200).items
    assert [one.sequence for one in events] == list(range(1, len(events) + 1))
    assert events[-1].type_ == "request.completed"


def test_generated_client__refused__the_problem_is_typed(clients: Clients) -> None:
    pool = clients["pool"]
    much = pool.model("new_stake", message_id="stake:much", user_id="nobody", amount_wei=str(ETHER))
    problem = pool.call("pool", "create_stake", body=much)
    assert (problem.status, problem.code) == (409, "insufficient_balance")
    assert problem.pool_request_id
    unknown = pool.call("pool", "get_request", "01997c5a-8f00-7000-8000-0000000000ff")
    assert (unknown.status, unknown.code) == (404, "not_found")


def test_generated_client__of_every_service__reads_what_is_there(house: World, clients: Clients) -> None:
    state = clients["protocols"].call("protocols", "get_lido_state")
    assert state.operator.address == house.flows.desk.operator
    (signer, *_) = clients["relayer"].call("relayer", "list_signers").items
    assert signer.address == house.flows.desk.operator
    assert clients["ledger"].call("ledger", "get_totals").sum_wei == "0"
    assert clients["rewards"].call("rewards", "get_reward_pool", "eth_native").pool_id == "eth_native"
    assert clients["pool"].call("health", "get_status").service == "pool"


def ledger_kind(ledger: GeneratedClient, value: str) -> object:
    """A member of the generated enum of kinds."""
    return ledger.enum("new_movement_kind", value)
