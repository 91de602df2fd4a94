"""What the pool's shapes name is what its states, its engine and its ways out name; and what makes a replay stays as it was."""

from apps.clients.shapes import walk as shapes
from apps.clients.shapes.pool_states import BatchStatus, RequestStatus
from apps.flow.runner import PARKED
from apps.pool.states import NEXT_STEPS, REQUEST_TERMINAL, request_transitions
from apps.pool.walk.halts import ACTIONS, WAYS_OUT, halt_facts, halt_shown
from apps.pool.walk.said import canonical_of

HALT: dict[str, str | int | None] = {
    "code": "foreign_out", "detail": "3 shares left.", "block_number": 7, "log_index": 2, "tx_hash": "0xaa",
    "kind": "foreign_out", "shares": "-3", "amount_wei": "4", "effect": None,
}  # fmt: skip


def test_parked__as_the_engine_writes_it__is_a_status_of_requests_and_batches() -> None:
    assert [str(RequestStatus.NEEDS_ATTENTION), str(BatchStatus.NEEDS_ATTENTION)] == [PARKED, PARKED]


def test_next_steps__each_open_status_that_is_not_parked__has_one() -> None:
    assert set(NEXT_STEPS) == {key for key in request_transitions() if key[1] != RequestStatus.NEEDS_ATTENTION}
    assert not {status for _, status in NEXT_STEPS} & REQUEST_TERMINAL


def test_actions__named_on_the_wire__are_those_explained() -> None:
    assert tuple(ACTIONS) == shapes.ACTIONS


def test_halt__kept_as_text__is_shown_as_numbers_with_its_ways_out() -> None:
    facts = halt_facts(HALT)
    assert (facts.shares, facts.amount_wei, facts.effect) == (-3, 4, None)
    shown = halt_shown(HALT)
    assert shown is not None
    assert [way.action for way in shown.ways_out] == list(WAYS_OUT["foreign_out"])


def test_canonical__of_a_resolution__is_every_field_as_text_but_the_message_id() -> None:
    said = shapes.NewResolution(
        message_id="m:1", by="olga", why="seen", action="book_loss", code="foreign_out", block_number=7, log_index=2,
        account="@fees", gas_cost_wei=5,
    )  # fmt: skip
    assert canonical_of(said, pool_id="eth_native") == {
        "by": "olga", "why": "seen", "evidence": None, "pool_id": "eth_native", "action": "book_loss",
        "code": "foreign_out", "block_number": "7", "log_index": "2", "batch_id": None, "account": "@fees",
        "effect": None, "gas_cost_wei": "5",
    }  # fmt: skip


def test_canonical__of_a_release__is_what_was_said_the_batch_and_the_action() -> None:
    said = shapes.NewRelease(message_id="m:1", by="olga", why="seen")
    assert canonical_of(said, batch_id="b", action="release_batch") == {
        "by": "olga", "why": "seen", "evidence": None, "batch_id": "b", "action": "release_batch",
    }  # fmt: skip
