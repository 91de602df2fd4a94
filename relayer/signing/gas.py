"""Gas limits, in gas units: pure arithmetic."""

MAX_GAS_LIMIT = 16_777_216  # EIP-7825
TRANSFER_GAS = 21_000


def least_gas(data: bytes) -> int:
    """What a call with this calldata costs at least: the floor of EIP-7623, 10 gas a token, a non-zero byte being four.

    The intrinsic 4 gas a token are always less. No contract is ever created here.
    """
    zeros = data.count(0)
    return TRANSFER_GAS + 10 * (zeros + 4 * (len(data) - zeros))


def with_margin(estimate: int) -> int:
    """An estimate and a quarter: the state may have moved on when the transaction runs. Never above EIP-7825."""
    return min(MAX_GAS_LIMIT, estimate + estimate // 4)
