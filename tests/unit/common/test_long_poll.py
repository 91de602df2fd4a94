"""Callers that wait: so many and no more, told by one look, and by none that began before they did."""

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from apps.common.long_poll import LongPoll

LONG = 60.0  # never waited for


class Told:
    """What is looked at; it counts who looks, and holds a look until it is let go."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {"a": 1, "b": 1}
        self.asked: list[frozenset[str]] = []
        self.fails = False
        self.both_wait = threading.Event()

    def look(self, keys: frozenset[str]) -> Mapping[str, int]:
        self.asked.append(keys)
        if keys == {"a", "b"}:
            self.both_wait.set()
        if self.fails:
            raise OSError("away")
        return {key: self.values[key] for key in keys}


def test_wait__something_changes__all_who_wait_for_it_are_told_by_one_looker() -> None:
    told = Told()
    poll = LongPoll(told.look, most=2, every_sec=0.001)
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(poll.wait, key, lambda value: value > 1, LONG) for key in ("a", "b")]
        assert told.both_wait.wait(LONG)
        lookers = [thread for thread in threading.enumerate() if thread.name == "long-poll"]
        told.values = {"a": 2, "b": 2}
        assert [one.result() for one in waiting] == [True, True]
    assert len(lookers) == 1


def test_wait__as_many_as_may_wait_already__answered_at_once_and_again_once_there_is_room() -> None:
    told = Told()
    poll = LongPoll(told.look, most=2, every_sec=0.001)
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(poll.wait, key, lambda value: value > 1, LONG) for key in ("a", "b")]
        assert told.both_wait.wait(LONG)
        assert poll.wait("a", lambda value: value > 1, LONG) is False
        told.values = {"a": 2, "b": 2}
        assert [one.result() for one in waiting] == [True, True]
    assert poll.wait("a", lambda value: value > 1, LONG) is True


def test_wait__nothing_changes__over_after_its_time_and_nobody_looks_any_more() -> None:
    told = Told()
    poll = LongPoll(told.look, most=2, every_sec=0.001)
    assert poll.wait("a", lambda value: value > 1, 0.02) is False
    for thread in threading.enumerate():
        if thread.name == "long-poll":
            thread.join(LONG)
    looks = len(told.asked)
    assert looks > 0
    assert poll.wait("a", lambda value: value > 1, 0) is False
    assert len(told.asked) == looks


def test_wait__the_look_fails__ends_so_that_the_caller_says_what_is_wrong() -> None:
    told = Told()
    told.fails = True
    poll = LongPoll(told.look, most=1, every_sec=0.001)
    assert poll.wait("a", lambda value: value > 1, LONG) is True
    told.fails = False
    told.values["a"] = 2
    assert poll.wait("a", lambda value: value > 1, LONG) is True


def test_wait__a_look_that_began_before__counts_for_none_who_came_later() -> None:
    told, entered, go_on = Told(), threading.Event(), threading.Event()

    def slow(keys: frozenset[str]) -> Mapping[str, int]:
        found = told.look(keys)
        if len(told.asked) == 1:
            entered.set()
            assert go_on.wait(LONG)
        return found

    poll = LongPoll(slow, most=2, every_sec=0.001)
    seen: list[int] = []

    def differs(value: int) -> bool:
        seen.append(value)
        return value != 2

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(poll.wait, "a", lambda value: value > 2, LONG)
        assert entered.wait(LONG)
        told.values["a"] = 2
        second = threads.submit(poll.wait, "a", differs, LONG)
        while poll._waited_for["a"] < 2:
            pass
        go_on.set()
        while 2 not in seen:
            pass
        told.values["a"] = 3
        assert (first.result(), second.result()) == (True, True)
    assert 1 not in seen, "what the first look had found was older than what the second caller had seen"
