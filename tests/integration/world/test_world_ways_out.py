"""Every halt of the walk and every parked batch has a way out: ops say what happened, and the books are right again."""

from typing import Any

import pytest
from eth_abi.abi import encode
from sqlalchemy import select, text, update
from web3 import Web3

from apps.clients.base import CallRefused
from apps.clients.ledger import movement
from apps.clients.rewards import stake_delta
from apps.clients.shapes.common import PoolQuery
from apps.clients.shapes.walk import NewRelease, NewResolution, ResolutionsQuery
from apps.common.database import make_engine, transaction
from apps.common.errors import ServiceError
from apps.common.settings import normalise_database_url
from apps.common.shapes import dump
from apps.common.wei import ETHER
from apps.flow.lease import acquire
from apps.flow.outcome import Park
from apps.flow.row import reason
from apps.flow.runner import write
from apps.pool.flows.batches import STEPS, BatchFlow
from apps.pool.models import Batch, BatchTransaction
from apps.pool.walk.halts import ACTIONS, WAYS_OUT
from apps.pool.walk.items import ITEM_STEPS
from apps.pool.walk.run import REFUSALS_BEFORE_HALT
from apps.protocols.history import SEEN_BEFORE_BELIEVED
from tests.support.flows import Flows
from tests.support.lido import ZERO
from tests.support.protocols import POOL
from tests.support.raw import raw

HERE = PoolQuery(pool_id=POOL)

BEACON_SLOT, SHARES_SLOT = 6, 7  # of the desk's Lido
FOUR_EYES = pytest.mark.parametrize("flows_settings", [{"ops_four_eyes": True}], indirect=True)


def halt_of(flows: Flows) -> dict[str, Any]:
    """Walk until it halts; returns what GET /v1/walk says of it."""
    flows.desk.oracle.mine()
    flows.walking()
    halt: dict[str, Any] | None = dump(flows.reads.walk(HERE))["halt"]
    assert halt is not None, flows.reads.walk(HERE)
    assert flows.walk().status == "halted"
    return halt


def say(flows: Flows, action: str, halt: dict[str, Any] | None, **fields: Any) -> dict[str, Any]:
    """What ops post about a halt."""
    flows.made += 1
    return dump(
        flows.service.resolutions.resolve_walk(resolution(f"ops:{flows.made}", body(action, halt, **fields)))[0]
    )


def resolution(message_id: str, fields: dict[str, Any]) -> NewResolution:
    return NewResolution(message_id=message_id, pool_id=POOL, **fields)


def release(flows: Flows, message_id: str, batch_id: str, why: str) -> dict[str, Any]:
    """What ops say of a parked batch that did nothing."""
    given = NewRelease(message_id=message_id, by="olga", why=why)
    return dump(flows.service.resolutions.release_batch(batch_id, given)[0])


def body(action: str, halt: dict[str, Any] | None, **fields: Any) -> dict[str, Any]:
    place = halt or {"code": None, "block_number": None, "log_index": None}
    return {
        "action": action,
        "code": place["code"],
        "block_number": place["block_number"],
        "log_index": place["log_index"],
        "batch_id": None,
        "account": None,
        "effect": None,
        "gas_cost_wei": None,
        "by": "olga",
        "why": "seen in the explorer",
        "evidence": "ticket 7",
        **fields,
    }


def refused(flows: Flows, action: str, halt: dict[str, Any] | None, **fields: Any) -> str:
    with pytest.raises(ServiceError) as refusal:
        say(flows, action, halt, **fields)
    return refusal.value.code


def goes_on(flows: Flows) -> None:
    """The walk goes to the head, and nothing is decided and not done."""
    flows.desk.oracle.mine()
    flows.walking()
    assert (flows.walk().status, dump(flows.reads.walk(HERE))["halt"]) == ("walking", None), flows.walk().reason
    statuses = {item["status"] for item in dump(flows.service.resolutions.list(ResolutionsQuery(limit=50)))["items"]}
    assert statuses <= {"applied", "rejected"}


def system(flows: Flows, account: str) -> int:
    return int(raw(flows.ledger).totals(POOL)["system"].get(account, "0"))


def park(flows: Flows) -> Batch:
    """The one open batch, parked as a conflict parks it."""
    with transaction(flows.context.sessions) as session:
        open_ones = Batch.status.not_in(("completed", "failed"))
        session.execute(update(Batch).where(open_ones).values(next_run_at=text("now()")))
    (batch,) = acquire(flows.context.sessions, Batch, 100.0)
    write(BatchFlow(flows.context), batch, Park(reason("conflict", "The key was used outside the relayer.")))
    return batch


def advance(flows: Flows) -> None:
    """One step of every open batch, the parked ones that ops released among them."""
    flows.batches()


def set_storage(flows: Flows, slot: int | bytes, value: int) -> None:
    place = hex(slot) if isinstance(slot, int) else "0x" + slot.hex()
    flows.desk.rpc("anvil_setStorageAt", flows.desk.deployment.steth, place, f"0x{value:064x}")
    flows.desk.oracle.mine()


# ---- who may say what ----


def test_resolve__a_walk_that_is_not_halted__is_refused(flows: Flows) -> None:
    flows.stake("ann", ETHER)
    assert refused(flows, "book_loss", None, account="@fees") == "not_halted"


def test_resolve__another_halt_or_another_way_or_too_little__is_refused_and_changes_nothing(flows: Flows) -> None:
    flows.stake("ann", 10 * ETHER)
    flows.by_hand(flows.desk.lido.transfer(flows.desk.user, ETHER))
    halt = halt_of(flows)
    assert [way["action"] for way in halt["ways_out"]] == ["book_loss"]
    assert refused(flows, "book_loss", {**halt, "code": "unknown_submit"}, account="@fees") == "halt_differs"
    assert refused(flows, "book_loss", {**halt, "log_index": halt["log_index"] + 1}, account="@fees") == "halt_differs"
    assert refused(flows, "adopt_as_company", halt) == "invalid_input"
    assert refused(flows, "book_loss", halt) == "invalid_input"  # to which account?
    assert dump(flows.service.resolutions.list(ResolutionsQuery(limit=50)))["items"] == []
    flows.walking()
    assert flows.walk().status == "halted"


def test_resolve__posted_twice__is_one_resolution_and_another_body_is_refused(flows: Flows) -> None:
    flows.stake("ann", 10 * ETHER)
    flows.by_hand(flows.desk.lido.transfer(flows.desk.user, ETHER))
    halt = halt_of(flows)
    given = body("book_loss", halt, account="@fees")
    first, replayed = flows.service.resolutions.resolve_walk(resolution("ops:1", given))
    again, replayed_again = flows.service.resolutions.resolve_walk(resolution("ops:1", given))
    assert (replayed, replayed_again, first.id) == (False, True, again.id)
    with pytest.raises(ServiceError) as refusal:
        flows.service.resolutions.resolve_walk(resolution("ops:1", {**given, "account": "@losses"}))
    assert refusal.value.code == "message_id_reused"
    goes_on(flows)


@FOUR_EYES
def test_resolve__with_four_eyes__waits_for_a_second_person(flows: Flows) -> None:
    flows.stake("ann", 10 * ETHER)
    flows.by_hand(flows.desk.lido.transfer(flows.desk.user, ETHER))
    halt = halt_of(flows)
    said = say(flows, "book_loss", halt, account="@losses")
    assert said["status"] == "proposed"
    flows.walking()
    assert flows.walk().status == "halted"
    with pytest.raises(ServiceError) as refusal:
        flows.service.resolutions.approve(said["id"], "olga")
    assert refusal.value.code == "second_person_needed"
    assert flows.service.resolutions.approve(said["id"], "paul").decided_by == "paul"
    with pytest.raises(ServiceError) as refusal:
        flows.service.resolutions.approve(said["id"], "rosa")
    assert refusal.value.code == "already_decided"
    goes_on(flows)
    with pytest.raises(ServiceError) as refusal:
        flows.service.resolutions.reject(said["id"], "paul")
    assert refusal.value.code == "already_decided"  # the walk has acted on it


def test_resolve__taken_back_before_the_walk_acts__changes_nothing(flows: Flows) -> None:
    flows.stake("ann", 10 * ETHER)
    flows.by_hand(flows.desk.lido.transfer(flows.desk.user, ETHER))
    said = say(flows, "book_loss", halt_of(flows), account="@fees")
    assert (said["status"], flows.service.resolutions.reject(said["id"], "paul").status) == ("approved", "rejected")
    flows.walking()
    assert flows.walk().status == "halted"


def test_resolve__an_item_decided_as_the_companys__is_not_missed(flows: Flows) -> None:
    flows.stake("ann", 10 * ETHER)
    flows.by_hand(flows.desk.lido.transfer(flows.desk.user, ETHER))
    halt = halt_of(flows)
    say(flows, "book_loss", halt, account="@fees")
    goes_on(flows)
    place = {"block_number": halt["block_number"], "log_index": halt["log_index"]}
    assert refused(flows, "book_missed", None, **place) == "item_booked"


@FOUR_EYES
def test_resolve__taken_back_before_a_second_person__changes_nothing(flows: Flows) -> None:
    flows.stake("ann", 10 * ETHER)
    flows.by_hand(flows.desk.lido.transfer(flows.desk.user, ETHER))
    said = say(flows, "book_loss", halt_of(flows), account="@losses")
    assert flows.service.resolutions.reject(said["id"], "olga").status == "rejected"
    flows.walking()
    assert flows.walk().status == "halted"


def test_resolution__changed_by_hand__is_refused_by_the_database(flows: Flows) -> None:
    flows.stake("ann", 10 * ETHER)
    flows.by_hand(flows.desk.lido.transfer(flows.desk.user, ETHER))
    say(flows, "book_loss", halt_of(flows), account="@losses")
    for statement in (
        "UPDATE resolutions SET why = 'another'",
        "UPDATE resolutions SET account = '@fees'",
        "DELETE FROM resolutions",
    ):
        with pytest.raises(Exception, match="kept for ever"), transaction(flows.context.sessions) as session:
            session.execute(text(statement))


# ---- stETH moved by hand ----


@pytest.mark.parametrize("account", ["@fees", "@losses"])
def test_steth_gone__booked_as_a_loss__is_the_companys_and_no_users(flows: Flows, account: str) -> None:
    flows.stake("ann", 10 * ETHER)
    flows.by_hand(flows.desk.lido.transfer(flows.desk.user, ETHER))
    halt = halt_of(flows)
    assert halt["code"] == "foreign_out"
    say(flows, "book_loss", halt, account=account)
    goes_on(flows)
    assert system(flows, account) == -ETHER
    assert flows.balance("ann")["staked_wei"] == str(10 * ETHER)
    flows.desk.oracle.rebase(50 * ETHER)  # and the books go on being right
    flows.stake("bob", 2 * ETHER)
    assert flows.drifts() == {}


def test_losses__covered_out_of_fees__are_gone_from_the_totals(flows: Flows) -> None:
    flows.stake("ann", 10 * ETHER)
    flows.by_hand(flows.desk.lido.transfer(flows.desk.user, ETHER))
    say(flows, "book_loss", halt_of(flows), account="@losses")
    goes_on(flows)
    flows.ledger.post_movement("cover", "loss_covered", POOL, None, ETHER)
    assert "@losses" not in raw(flows.ledger).totals(POOL)["system"]
    assert flows.drifts() == {}


def test_submit_by_hand__adopted_as_the_companys__is_paid_out_of_its_float(flows: Flows) -> None:
    flows.stake("ann", 10 * ETHER)
    before = system(flows, "@gas")
    flows.desk.submit(flows.desk.operator, 3 * ETHER)  # no relayer: its nonce and its gas are spent
    halt = halt_of(flows)
    assert (halt["code"], halt["amount_wei"]) == ("unknown_submit", str(3 * ETHER))
    latest = flows.desk.web3.eth.get_block("latest", full_transactions=False)
    receipt = flows.desk.web3.eth.get_transaction_receipt(halt["tx_hash"])
    assert latest["number"] > receipt["blockNumber"]
    cost = receipt["gasUsed"] * receipt["effectiveGasPrice"]
    say(flows, "adopt_as_company", halt, gas_cost_wei=cost)
    goes_on(flows)
    assert (system(flows, "@fees"), system(flows, "@gas")) == (3 * ETHER, before - 3 * ETHER - cost)
    assert flows.drifts() == {}


def test_submit_by_hand__adopted_as_the_parked_batchs__completes_its_requests(flows: Flows) -> None:
    flows.deposit("ann", 4 * ETHER)
    asked = flows.ask("stake", "ann", 4 * ETHER)
    flows.batching()
    flows.batches()
    batch = park(flows)
    flows.by_hand(flows.desk.lido.submit(ZERO), 4 * ETHER)
    halt = halt_of(flows)
    assert halt["code"] == "unknown_submit"
    say(flows, "adopt_as_batch", halt, batch_id=batch.id)
    # From here on nothing may make the batch send its own, or its requests be sent with another one.
    with pytest.raises(ServiceError) as refusal:
        flows.service.retry(asked["id"])
    assert refusal.value.code == "not_retryable"
    with pytest.raises(ServiceError) as refusal:
        release(flows, "ops:r", batch.id, "?")
    assert refusal.value.code == "batch_has_effect"
    goes_on(flows)
    done = flows.request(asked)
    assert (done["status"], done["settled_wei"]) == ("completed", str(4 * ETHER))
    assert flows.balance("ann")["staked_wei"] == str(4 * ETHER)
    assert flows.drifts() == {}


def test_submit_by_hand__of_another_amount_than_the_batchs__is_not_adopted_as_its(flows: Flows) -> None:
    flows.deposit("ann", 4 * ETHER)
    flows.ask("stake", "ann", 4 * ETHER)
    flows.batching()
    flows.batches()
    batch = park(flows)
    flows.by_hand(flows.desk.lido.submit(ZERO), 3 * ETHER)
    halt = halt_of(flows)
    assert refused(flows, "adopt_as_batch", halt, batch_id=batch.id) == "batch_not_matching"
    assert refused(flows, "adopt_as_batch", halt, batch_id="none") == "invalid_input"
    say(flows, "adopt_as_company", halt)
    goes_on(flows)


def test_submit_by_hand__while_the_batchs_own_is_under_way__is_not_adopted_as_its(flows: Flows) -> None:
    flows.deposit("ann", 4 * ETHER)
    flows.ask("stake", "ann", 4 * ETHER)
    flows.batching()
    flows.batches()
    flows.batches()  # the relayer has it
    batch = park(flows)
    flows.by_hand(flows.desk.lido.submit(ZERO), 4 * ETHER)
    assert refused(flows, "adopt_as_batch", halt_of(flows), batch_id=batch.id) == "batch_has_effect"


def test_submit__of_another_amount_than_its_batchs__is_the_companys_and_the_requests_go_on(flows: Flows) -> None:
    flows.deposit("ann", 4 * ETHER)
    asked = flows.ask("stake", "ann", 4 * ETHER)
    flows.batching()
    receipt = flows.by_hand(flows.desk.lido.submit(ZERO), 3 * ETHER)
    with transaction(flows.context.sessions) as session:
        batch = session.scalars(select(Batch)).one()
        sent = {"message_id": "by-hand", "batch_id": batch.id, "purpose": "submit", "status": "confirmed"}
        session.add(BatchTransaction(**sent, tx_hash="0x" + bytes(receipt["transactionHash"]).hex()))
    halt = halt_of(flows)
    assert halt["code"] == "submit_mismatch"
    say(flows, "adopt_as_company", halt)
    goes_on(flows)
    assert flows.request(asked)["status"] == "needs_attention"
    release(flows, "ops:1", batch.id, "adopted")
    advance(flows)
    flows.settle()
    assert flows.request(asked)["status"] == "completed"
    assert flows.drifts() == {}


def test_request_by_hand__adopted_as_the_companys__is_paid_into_its_float_in_the_end(flows: Flows) -> None:
    desk = flows.desk
    flows.stakes({"ann": 10 * ETHER, "bob": 10 * ETHER})
    flows.by_hand(desk.lido.approve(desk.deployment.withdrawal_queue, 5 * ETHER))
    flows.by_hand(desk.queue.requestWithdrawals([2 * ETHER, 3 * ETHER], desk.operator))
    halt = halt_of(flows)
    assert halt["code"] == "unknown_request"
    say(flows, "adopt_as_company", halt)
    goes_on(flows)
    assert flows.drifts() == {}  # both withdrawals, by one word
    desk.oracle.rebase(-100 * ETHER, finalize_up_to=2)
    flows.settle()
    assert flows.claims() == 0  # nobody's requests
    before, held = system(flows, "@gas"), desk.balance(desk.operator)
    flows.by_hand(desk.queue.claimWithdrawalsTo([1, 2], [1, 1], desk.operator))
    paid = desk.balance(desk.operator) - held
    flows.desk.oracle.mine()
    goes_on(flows)
    assert system(flows, "@gas") - before == paid < 5 * ETHER
    assert system(flows, "@fees") == -5 * ETHER
    assert flows.drifts() == {}


def test_gift_of_a_withdrawal__claimed_by_hand__is_adopted_as_the_companys(flows: Flows) -> None:
    desk = flows.desk
    stranger = desk.deployment.stranger
    flows.stake("ann", 10 * ETHER)
    desk.submit(stranger, 20 * ETHER)
    desk.approve(stranger, 20 * ETHER)
    desk.do(desk.queue.requestWithdrawals([2 * ETHER], desk.operator), stranger)
    desk.oracle.finalize()
    flows.by_hand(desk.queue.claimWithdrawalsTo([1], [1], desk.operator))
    halt = halt_of(flows)
    assert halt["code"] == "unknown_withdrawal"
    say(flows, "adopt_as_company", halt)
    goes_on(flows)
    assert flows.drifts() == {}


def test_claim_paid_elsewhere__booked_as_a_loss__credits_its_user_out_of_the_float(flows: Flows) -> None:
    desk = flows.desk
    flows.stake("ann", 10 * ETHER)
    asked = flows.ask("unstake", "ann", 4 * ETHER)
    flows.settle()
    desk.oracle.finalize()
    before = system(flows, "@gas")
    flows.by_hand(desk.queue.claimWithdrawalsTo([1], [1], desk.user))
    halt = halt_of(flows)
    assert halt["code"] == "claim_paid_elsewhere"
    say(flows, "book_loss", halt, account="@fees")
    goes_on(flows)
    done = flows.request(asked)
    assert done["status"] == "completed"
    assert flows.balance("ann")["available_wei"] == done["settled_wei"]
    assert system(flows, "@gas") == before - int(done["settled_wei"])
    assert flows.drifts() == {}


# ---- differences that no item explains ----


def test_shares_gone__without_a_log__are_written_off_once_ops_say_so(flows: Flows) -> None:
    desk = flows.desk
    flows.stake("ann", 10 * ETHER)
    place = Web3.keccak(encode(["address", "uint256"], [desk.operator, SHARES_SLOT]))
    held = desk.shares(desk.operator)
    desk.oracle.mine()
    set_storage(flows, bytes(place), held - ETHER)
    assert desk.shares(desk.operator) == held - ETHER
    block = desk.head() - 1  # the head's storage is changed, then a block is mined
    for _ in range(SEEN_BEFORE_BELIEVED):
        desk.oracle.mine()
        flows.walking()
    assert "history_incomplete" in (flows.walk().last_error or "")  # no log says so: the node may have left one out
    said = {"message_id": "ops:d", "block_number": block, "reason": "burnt by the protocol", "requested_by": "olga"}
    for wrong in ({"shares": str(1 - ETHER)}, {"shares": str(-ETHER), "block_number": block + 1}):
        with pytest.raises(CallRefused) as refusal:
            flows.context.protocols.post(
                "/v1/lido/share-differences", {**said, "message_id": f"ops:{len(str(wrong))}", **wrong}
            )
        assert refusal.value.code == "difference_unproved"
    flows.context.protocols.post("/v1/lido/share-differences", {**said, "shares": str(-ETHER)})
    halt = halt_of(flows)
    assert (halt["code"], halt["shares"]) == ("shares_mismatch", str(-ETHER))
    say(flows, "book_difference", halt, account="@losses")
    goes_on(flows)
    assert system(flows, "@losses") == -int(halt["amount_wei"])
    assert flows.drifts() == {}


@pytest.mark.parametrize("change", [-ETHER, ETHER])
def test_steth_off__without_a_report__is_booked_as_what_it_is_once_ops_say_so(flows: Flows, change: int) -> None:
    desk = flows.desk
    flows.stake("ann", 10 * ETHER)
    before = desk.steth(desk.operator)
    beacon = int(desk.rpc("eth_getStorageAt", desk.deployment.steth, hex(BEACON_SLOT), "latest"), 16)
    set_storage(flows, BEACON_SLOT, beacon + 100 * change)
    gone = before - desk.steth(desk.operator)
    assert abs(gone) > 10**15
    halt = halt_of(flows)
    assert halt["code"] == "dust_out_of_bounds"
    assert abs(int(halt["amount_wei"]) - gone) <= 2
    say(flows, "book_difference", halt, account="@losses")
    goes_on(flows)
    account = "@losses" if change < 0 else "@fees"
    assert system(flows, account) == -int(halt["amount_wei"])
    assert flows.drifts() == {}


def test_claim_missed_by_an_older_scan__found_by_a_rescan__is_booked_out_of_order(flows: Flows) -> None:
    desk = flows.desk
    flows.stake("ann", 10 * ETHER)
    asked = flows.ask("unstake", "ann", 4 * ETHER)
    flows.settle()
    desk.oracle.finalize()
    flows.claims()
    for _ in range(3):
        flows.batches()
        flows.pump()
    engine = make_engine(normalise_database_url(flows.databases["protocols"]), autocommit=True)
    flows.context.protocols.history("0:-1")
    with engine.connect() as connection:
        (row,) = connection.execute(text("DELETE FROM share_events WHERE kind = 'claim' RETURNING *")).mappings()
        flows.deposit("bob", ETHER)
        flows.ask("stake", "bob", ETHER)
        for _ in range(5):
            flows.turn()
        assert flows.request(asked)["status"] == "claiming"  # and would be for ever
        place = {"block_number": row["block_number"], "log_index": row["log_index"]}
        assert refused(flows, "book_missed", None, **place) == "invalid_input"  # the history has none there
        names = ", ".join(row.keys())
        values = ", ".join(f":{name}" for name in row)
        connection.execute(text(f"INSERT INTO share_events ({names}) VALUES ({values})"), dict(row))
    engine.dispose()
    say(flows, "book_missed", None, **place)
    goes_on(flows)
    flows.settle()
    assert flows.request(asked)["status"] == "completed"
    assert refused(flows, "book_missed", None, **place) == "item_booked"
    assert flows.drifts() == {}


# ---- what the books refuse ----


def test_booking__under_a_name_that_stands_for_something_else__halts_by_name_and_goes_on_renamed(flows: Flows) -> None:
    flows.deposit("ann", 4 * ETHER)
    asked = flows.ask("stake", "ann", 3 * ETHER)
    effect = f"stake:{asked['id']}:confirm"
    flows.ledger.post_movement(effect, "stake_reserve", POOL, "ann", 5)
    for _ in range(4):
        flows.batching()
        flows.batches()
        flows.pump()
    halt = halt_of(flows)
    assert (halt["code"], halt["effect"]) == ("booking_refused", effect)
    assert refused(flows, "rename_effect", halt, effect="another") == "halt_differs"
    say(flows, "rename_effect", halt, effect=effect)
    goes_on(flows)
    assert flows.request(asked)["status"] == "completed"
    reversal = movement("undo", "reversal", POOL, "ann", 5, reference=effect)
    flows.ledger.post_batch([reversal])
    assert flows.drifts() == {}


def test_index__a_name_that_stands_for_something_else_there__halts_by_name_and_goes_on_renamed(flows: Flows) -> None:
    flows.deposit("ann", 4 * ETHER)
    asked = flows.ask("stake", "ann", 3 * ETHER)
    effect = f"stake:{asked['id']}:confirm"
    flows.context.rewards.stake_deltas(POOL, [stake_delta(effect, "ann", 7)])
    for _ in range(4):
        flows.batching()
        flows.batches()
        flows.pump()
    halt = halt_of(flows)
    assert (halt["code"], halt["effect"]) == ("booking_refused", effect)
    say(flows, "rename_effect", halt, effect=effect)
    goes_on(flows)
    flows.context.rewards.stake_deltas(POOL, [stake_delta("undo", "ann", -7)])
    assert flows.position("ann")["staked_wei"] == str(3 * ETHER)
    assert flows.drifts() == {}


def test_booking__refused_again_and_again__halts_and_goes_on_once_the_books_are_right(flows: Flows) -> None:
    flows.deposit("ann", 4 * ETHER)
    asked = flows.ask("stake", "ann", 3 * ETHER)
    flows.ledger.post_batch(
        [movement("oops", "reversal", POOL, "ann", 3 * ETHER, reference=f"stake:{asked['id']}:reserve")]
    )
    for _ in range(4):
        flows.batching()
        flows.batches()
        flows.pump()
    flows.desk.oracle.mine()
    for _ in range(REFUSALS_BEFORE_HALT):
        flows.walking()
        assert flows.walk().status == "walking"  # it may be the middle of a pair
    flows.walking()
    assert (flows.walk().status, (flows.walk().halt or {})["code"]) == ("halted", "booking_refused")
    flows.ledger.post_movement("again", "stake_reserve", POOL, "ann", 3 * ETHER)
    goes_on(flows)
    assert flows.request(asked)["status"] == "completed"
    assert flows.drifts() == {}


def test_walk__an_unforeseen_fault__shows_on_its_row_and_heals(flows: Flows, monkeypatch: pytest.MonkeyPatch) -> None:
    flows.stake("ann", 10 * ETHER)
    flows.ask("unstake", "ann", 2 * ETHER)
    for _ in range(8):
        flows.batching()
        flows.batches()
        flows.pump()

    def broken(*_: object) -> None:
        raise KeyError("elements")

    with monkeypatch.context() as patched:
        patched.setitem(ITEM_STEPS, "request", broken)
        halt = halt_of(flows)
    assert halt["code"] == "walk_fault"
    assert "KeyError" in halt["detail"]
    goes_on(flows)
    flows.settle()
    assert flows.drifts() == {}


def test_loss__that_fits_no_unstake__is_covered_by_the_company_once_ops_say_so(flows: Flows) -> None:
    flows.stake("ann", 10 * ETHER)
    # Exiting wei that no request of the pool knows of, in both books: an operator's own hand.
    flows.context.rewards.stake_deltas(POOL, [stake_delta("hand", "ann", -10 * ETHER, 10 * ETHER)])
    flows.ledger.post_movement("hand", "unstake_start", POOL, "ann", 10 * ETHER)
    flows.desk.oracle.rebase(-100 * ETHER)
    halt = halt_of(flows)
    assert halt["code"] == "loss_unplaced"
    say(flows, "cover_loss", halt)
    goes_on(flows)
    assert flows.balance("ann")["unstaking_wei"] == flows.position("ann")["exiting_wei"] == str(10 * ETHER)
    assert system(flows, "@fees") == -int(halt["amount_wei"])
    assert flows.drifts() == {}


# ---- parked batches ----


def test_parked_batch__released__puts_its_requests_back_and_they_complete(flows: Flows) -> None:
    flows.deposit("ann", 4 * ETHER)
    asked = flows.ask("stake", "ann", 4 * ETHER)
    flows.batching()
    flows.batches()
    batch = park(flows)
    assert flows.request(asked)["status"] == "needs_attention"
    said = release(flows, "ops:1", batch.id, "nothing was sent")
    advance(flows)
    assert flows.request(asked)["status"] == "queued"
    flows.settle()
    assert flows.request(asked)["status"] == "completed"
    found = dump(flows.service.resolutions.list(ResolutionsQuery(limit=1)))["items"][0]
    assert (found["id"], found["status"]) == (said["id"], "applied")
    assert flows.drifts() == {}


def test_parked_unstake_batch__released_after_it_left_the_index__comes_back_into_it(flows: Flows) -> None:
    flows.stake("ann", 10 * ETHER)
    asked = flows.ask("unstake", "ann", 4 * ETHER)
    flows.batching()
    flows.batches()  # has left the index
    batch = park(flows)
    assert flows.position("ann")["exiting_wei"] == "0"
    release(flows, "ops:1", batch.id, "no effect")
    advance(flows)
    assert flows.position("ann")["exiting_wei"] == str(4 * ETHER)
    assert flows.request(asked)["status"] == "queued"
    flows.settle()
    assert flows.request(asked)["status"] == "waiting"
    assert flows.drifts() == {}


def test_parked_batch__whose_transaction_may_still_be_mined__is_not_released(flows: Flows) -> None:
    flows.deposit("ann", 4 * ETHER)
    flows.ask("stake", "ann", 4 * ETHER)
    flows.batching()
    flows.batches()
    flows.batches()  # the relayer has it
    batch = park(flows)
    with pytest.raises(ServiceError) as refusal:
        release(flows, "ops:1", batch.id, "?")
    assert refusal.value.code == "batch_has_effect"


def test_batch__that_is_not_parked__is_not_released(flows: Flows) -> None:
    flows.stake("ann", ETHER)
    with transaction(flows.context.sessions) as session:
        batch = session.scalars(select(Batch)).one()
    with pytest.raises(ServiceError) as refusal:
        release(flows, "ops:1", batch.id, "?")
    assert refusal.value.code == "batch_not_matching"


def test_ways_out__of_every_code__are_actions_that_exist_and_every_step_of_a_batch_has_one() -> None:
    assert set(WAYS_OUT) >= {"foreign_out", "unknown_submit", "chain_reorganized", "booking_refused"}
    assert {kind for kind, status in STEPS if status == "needs_attention"} == {"stake", "unstake", "claim"}
    assert {way for ways in WAYS_OUT.values() for way in ways} == set(ACTIONS)
