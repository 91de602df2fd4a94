"""Four eyes: what one person has said takes effect once another one agrees."""

from apps.pool.errors import SecondPersonNeeded


def check_second_person(by: str, *first: str | None) -> None:
    """Raise `SecondPersonNeeded` where whoever agrees is one of those who asked."""
    if by in first:
        raise SecondPersonNeeded(f"{by} asked for this; another person must decide.")
