"""Split amounts into elements the withdrawal queue accepts. Pure."""

MIN_ELEMENT_WEI = 100  # WithdrawalQueue.MIN_STETH_WITHDRAWAL_AMOUNT
MAX_ELEMENT_WEI = 1000 * 10**18  # WithdrawalQueue.MAX_STETH_WITHDRAWAL_AMOUNT
MAX_ELEMENTS = 100


def split(amount_wei: int) -> list[int]:
    """Elements of at most 1000 stETH that sum to the amount, none below 100 wei.

    A rest of 1 to 99 wei would revert the whole transaction, so the last full element gives up what the rest lacks.
    Raises `ValueError` below 100 wei.
    """
    if amount_wei < MIN_ELEMENT_WEI:
        raise ValueError(f"Must be at least {MIN_ELEMENT_WEI} wei.")
    full, rest = divmod(amount_wei, MAX_ELEMENT_WEI)
    elements = [MAX_ELEMENT_WEI] * full
    if rest == 0:
        return elements
    if rest < MIN_ELEMENT_WEI:
        lacking = MIN_ELEMENT_WEI - rest
        elements[-1] -= lacking
        rest += lacking
    return [*elements, rest]
