"""What goes into one batch: oldest first, within limits, and nobody waits for another without end."""

from random import Random

import pytest

from apps.pool.flows.fitting import Fit, Hold, Waiting, fit


def rows(*sizes: int) -> list[Waiting]:
    return [Waiting(str(number), size) for number, size in enumerate(sizes)]


def test_fit__no_limits__all() -> None:
    assert fit(rows(5, 7, 9)) == Fit(["0", "1", "2"], None)


def test_fit__a_batch_is_full__the_next_one_begins_the_next_batch() -> None:
    assert fit(rows(5, 7, 1), batch=10) == Fit(["0"], None)


def test_fit__one_was_refused_in_a_larger_batch__as_few_as_that_says() -> None:
    assert fit([Waiting("a", 1), Waiting("b", 1, 2), Waiting("c", 1)]).chosen == ["a", "b"]
    assert fit([Waiting("a", 1), Waiting("b", 1, 1), Waiting("c", 1)]).chosen == ["a"]
    assert fit([Waiting("b", 1, 1), Waiting("c", 1)]).chosen == ["b"]


def test_fit__the_front_waits_for_the_room__nobody_passes_while_patience_lasts_and_then_others_do() -> None:
    first = fit(rows(8, 2, 3), room=5, now=100.0, patience_sec=60.0)
    assert (first.chosen, first.hold) == ([], Hold("0", 100.0, 0, 5))
    still = fit(rows(8, 2, 3), room=6, hold=first.hold, now=159.0, patience_sec=60.0)
    assert still.chosen == []
    later = fit(rows(8, 2, 3), room=7, hold=still.hold, now=161.0, patience_sec=60.0)
    assert later.chosen == ["1", "2"]


def test_fit__others_come_without_end__the_holder_gets_half_of_what_refills_and_then_goes() -> None:
    random = Random(5)
    size, refill, room, hold, looks = 1000, 10, 0, None, 0
    while True:
        looks += 1
        room += refill
        crowd = [Waiting(f"{looks}-{number}", random.randint(1, 4)) for number in range(20)]
        found = fit([Waiting("large", size), *crowd], room=room, hold=hold, now=float(looks), patience_sec=5.0)
        hold = found.hold
        if "large" in found.chosen:
            break
        room -= sum(row.size for row in crowd if row.request_id in found.chosen)
        if looks > 6:
            assert found.chosen, "the crowd has its half"
        assert looks < 2 * size // refill + 20
    assert looks >= size // refill


@pytest.mark.parametrize("seed", range(20))
def test_fit__whatever_the_rows__within_every_limit_in_order_and_not_empty_without_cause(seed: int) -> None:
    random = Random(seed)
    for _ in range(200):
        batch = random.choice([None, random.randint(10, 50)])
        room = random.choice([None, random.randint(0, 60)])
        found_rows = [
            Waiting(str(number), random.randint(1, batch or 40), random.choice([None, None, random.randint(1, 5)]))
            for number in range(random.randint(1, 12))
        ]
        found = fit(found_rows, batch=batch, room=room, now=1.0, patience_sec=random.choice([0.0, 9.0]))
        chosen = [row for row in found_rows if row.request_id in found.chosen]
        assert [row.request_id for row in chosen] == found.chosen
        total = sum(row.size for row in chosen)
        assert batch is None or total <= batch
        assert room is None or total <= room
        assert all(row.at_most is None or len(chosen) <= row.at_most for row in chosen)
        assert chosen or (room is not None and found_rows[0].size > room)
