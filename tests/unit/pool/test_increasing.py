"""Many users' increases: index before books for each of them, the two side by side, and a fault of either ends both."""

import threading
from collections.abc import Callable, Sequence

import pytest
import structlog

from apps.pool.walk.increasing import increase

Numbers = Sequence[int]
WAIT_SEC = 30


class Taken:
    """What index and books were given, in the order in which they took it."""

    def __init__(self) -> None:
        self.log: list[tuple[str, int]] = []

    def taker(self, name: str, fails_at: int | None = None) -> Callable[[Numbers], None]:
        def take(part: Numbers) -> None:
            if fails_at in part:
                raise RuntimeError(name)
            self.log.extend((name, item) for item in part)

        return take

    def of(self, name: str) -> list[int]:
        return [item for who, item in self.log if who == name]


@pytest.mark.parametrize("count", [0, 1, 4, 5, 9, 12])
def test_increase__any_number__each_once_in_order_and_moved_before_it_is_booked(count: int) -> None:
    taken = Taken()
    increase(range(count), taken.taker("index"), taken.taker("books"), per_part=4)
    assert taken.of("index") == taken.of("books") == list(range(count))
    for item in range(count):
        assert taken.log.index(("index", item)) < taken.log.index(("books", item))


def test_increase__two_parts__the_second_is_moved_while_the_first_is_booked() -> None:
    second_moved = threading.Event()

    def move(part: Numbers) -> None:
        if 1 in part:
            second_moved.set()

    def book(part: Numbers) -> None:
        if 0 in part:
            assert second_moved.wait(WAIT_SEC), "the books were waited for"

    increase([0, 1], move, book, per_part=1)


def test_increase__the_books_refuse_a_part__raised_and_nothing_further_is_booked() -> None:
    taken = Taken()
    with pytest.raises(RuntimeError, match="books"):
        increase(range(5), taken.taker("index"), taken.taker("books", fails_at=1), per_part=1)
    assert taken.of("books") == [0]
    assert taken.of("index") == [0, 1, 2], "the one beside it had begun"


def test_increase__the_index_refuses_a_part__raised_when_the_books_of_the_part_before_are_done() -> None:
    taken = Taken()
    with pytest.raises(RuntimeError, match="index"):
        increase(range(3), taken.taker("index", fails_at=1), taken.taker("books"), per_part=1)
    assert taken.of("books") == [0]


def test_increase__many_parts__calls_beside_carry_the_id_of_the_request_that_they_are_made_for() -> None:
    found = []
    with structlog.contextvars.bound_contextvars(request_id="asked-for"):
        increase(
            range(3),
            lambda _: None,
            lambda _: found.append(structlog.contextvars.get_contextvars().get("request_id")),
            per_part=1,
        )
    assert found == ["asked-for"] * 3
