"""What a node is found to take, and what its words mean."""

import pytest

from apps.ethereum import jsonrpc
from apps.ethereum.abilities import lacks
from apps.ethereum.jsonrpc import read_error
from apps.ethereum.limits import MAX_BATCH, PROBE_MAX_SEC, PROBE_SEC, RATE_REST_MAX_SEC, RATE_REST_SEC, Limits
from apps.ethereum.node_words import Trouble, trouble
from tests.support.rude_node import PRUNED_TEXTS, RANGE_TEXTS


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1_000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_limits__batch_refused__remembered_and_tried_upward_ever_later(clock: list[float]) -> None:
    limits = Limits()
    assert limits.size() == MAX_BATCH
    limits.took(6, refused=12)
    assert (limits.size(), limits.refused_batch) == (6, 12)
    clock[0] += PROBE_SEC
    assert limits.size() == 12
    limits.took(6, refused=12)
    clock[0] += PROBE_SEC
    assert limits.size() == 6
    clock[0] += PROBE_SEC
    assert limits.size() == 12
    limits.took(12, refused=None)  # the provider takes more now
    assert (limits.batch, limits.refused_batch) == (12, None)
    while limits.batch < MAX_BATCH:
        clock[0] += PROBE_MAX_SEC
        limits.took(limits.size(), refused=None)
    assert limits.size() == MAX_BATCH


def test_limits__fewer_calls_than_it_takes__learn_nothing(clock: list[float]) -> None:
    limits = Limits()
    limits.took(3, refused=None)
    assert limits.size() == MAX_BATCH


def test_limits__rate_limited_without_a_word__rests_ever_longer_and_anew_once_it_answers(clock: list[float]) -> None:
    limits = Limits()
    waits = [limits.rate_limited(None) for _ in range(12)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (RATE_REST_SEC, RATE_REST_MAX_SEC)
    assert limits.rests_until == clock[0] + waits[-1]
    assert limits.rate_limited(7.0) == 7.0
    limits.took(1, refused=None)
    assert limits.rate_limited(None) == RATE_REST_SEC


@pytest.mark.parametrize(
    ("code", "message", "meaning"),
    [
        (-32005, "project ID request rate exceeded", Trouble.RATE),
        (429, "Your app has exceeded its compute units per second capacity", Trouble.RATE),
        (-32600, "batch size too large", Trouble.BATCH),
        (-32000, "Batch of more than 3 requests are not allowed on free tier", Trouble.BATCH),
        (-32003, "response too large", Trouble.SIZE),
        (-32005, "query returned more than 10000 results", Trouble.RANGE),
        *((-32602, text, Trouble.RANGE) for text in RANGE_TEXTS if "response size" not in text),
        *((-32000, text, Trouble.PRUNED) for text in PRUNED_TEXTS),
        (-32601, "the method eth_feeHistory does not exist/is not available", Trouble.MISSING),
        (-32601, "whatever", Trouble.MISSING),
        (-32000, "header not found", Trouble.BEHIND),
        (3, "execution reverted: STAKE_LIMIT", Trouble.OTHER),
        (3, "execution reverted: batch too large", Trouble.OTHER),
        (-32000, "insufficient funds for gas * price + value", Trouble.OTHER),
        (0, "", Trouble.OTHER),
    ],
)
def test_trouble__words_of_many_nodes__one_meaning(code: int, message: str, meaning: Trouble) -> None:
    assert trouble(code, message) is meaning


@pytest.mark.parametrize(
    "error", ["text", 7, {}, {"code": "x"}, {"code": None, "message": None}, {"data": {"data": 1}}]
)
def test_error__of_any_shape__is_read(error: object) -> None:
    assert read_error(error).code == 0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None), ("", None), ("7", 7.0), ("0", 0.25), ("-5", 0.25), ("1e9", 60.0), ("nan", None), ("soon", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.25), ("Wed, 21 Oct 2115 07:28:00 GMT", 60.0),
    ],
)  # fmt: skip
def test_retry_after__of_any_shape__bounded(header: str | None, seconds: float | None) -> None:
    assert jsonrpc._seconds(header) == seconds


def test_lacks__a_good_node__nothing_to_say() -> None:
    good = {
        "answers": True, "batch_limit": None, "block_hashes": True, "finalized": True, "fee_history": True,
        "block_receipts": True, "state_depth": 100_000,
    }  # fmt: skip
    assert lacks(good) == []
    assert lacks({**good, "batch_limit": 10, "state_depth": 128}) == [
        "takes at most 10 calls a batch",
        "keeps the state of 128 blocks: a longer standstill needs an archive node",
    ]
    assert lacks({"answers": False, "batch_limit": None}) == ["does not answer"]
