"""What a run of the tests starts: databases, nodes, services, stacks. Told at its end, so that growth is seen."""

from collections import Counter

STARTED: Counter[str] = Counter()


def count(what: str) -> None:
    """One more of these was started by this process."""
    STARTED[what] += 1
