"""Increases of many users at once: the index first, then the books, as for one user; the two side by side over parts."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

Item = TypeVar("Item")

# Four parts of the largest batch: the time limits of all their calls together are below a lease.
PER_PART = 2_500


def increase(
    items: Sequence[Item],
    move: Callable[[Sequence[Item]], None],
    book: Callable[[Sequence[Item]], None],
    *,
    per_part: int = PER_PART,
) -> None:
    """`move` and then `book` all items, part by part; while one part is booked the next one is moved.

    No item is booked before it is moved, and parts are booked in their order. Where either raises, nothing further is begun, and
    it is raised when the other one has ended; both are harmless when run again, so what was done then stands.
    """
    if len(items) <= per_part:
        move(items)
        book(items)
        return
    booking: Future[None] | None = None
    with ThreadPoolExecutor(1) as beside:
        for start in range(0, len(items), per_part):
            part = items[start : start + per_part]
            move(part)
            if booking is not None:
                booking.result()
            booking = beside.submit(copy_context().run, book, part)
        if booking is not None:
            booking.result()
