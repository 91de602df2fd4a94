"""Split amounts into elements the withdrawal queue accepts. Pure."""

from apps.ethereum.constants import MAX_WITHDRAWAL_WEI, MIN_WITHDRAWAL_WEI


def split(amount_wei: int) -> list[int]:
    """Elements of at most 1000 stETH that sum to the amount, none below 100 wei.

    A rest of 1 to 99 wei would revert the whole transaction, so the last full element gives up what the rest lacks.
    Raises `ValueError` below 100 wei.
    """
    if amount_wei < MIN_WITHDRAWAL_WEI:
        raise ValueError(f"Must be at least {MIN_WITHDRAWAL_WEI} wei.")
    full, rest = divmod(amount_wei, MAX_WITHDRAWAL_WEI)
    elements = [MAX_WITHDRAWAL_WEI] * full
    if rest == 0:
        return elements
    if rest < MIN_WITHDRAWAL_WEI:
        lacking = MIN_WITHDRAWAL_WEI - rest
        elements[-1] -= lacking
        rest += lacking
    return [*elements, rest]
