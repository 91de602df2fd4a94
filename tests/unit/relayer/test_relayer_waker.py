"""Few hints in a burst, and never none after the last call."""

import threading

from relayer.waker import Waker


def test_waker__burst__few_hints_and_one_after_the_last_call() -> None:
    calls = 0
    seen: list[int] = []
    caught_up = threading.Event()

    def publish() -> None:
        seen.append(calls)
        if calls == 1_000:
            caught_up.set()

    wake = Waker(publish)
    for _ in range(1_000):
        calls += 1
        wake()
    assert caught_up.wait(30)
    assert seen[0] == 1
    assert len(seen) < 500


def test_waker__calls_from_many_threads__a_hint_after_each() -> None:
    total = 8
    started = 0
    done = threading.Event()
    lock = threading.Lock()

    def publish() -> None:
        with lock:
            if started == total:
                done.set()

    wake = Waker(publish)

    def call() -> None:
        nonlocal started
        with lock:
            started += 1
        wake()

    threads = [threading.Thread(target=call) for _ in range(total)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done.wait(30)
