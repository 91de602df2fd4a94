"""Node dialects: each text to its class; what is unknown is treated as delivered."""

import pytest

from relayer.chain.replies import Reply, classify

DIALECTS = [
    ("already known", Reply.KNOWN),
    ("AlreadyKnown", Reply.KNOWN),
    ("ALREADY_EXISTS: already known", Reply.KNOWN),
    ("Known transaction", Reply.KNOWN),
    ("transaction already imported", Reply.KNOWN),
    ("Transaction with the same hash was already imported.", Reply.KNOWN),
    ("nonce too low: next nonce 5, tx nonce 4", Reply.NONCE_LOW),
    ("OldNonce, Current nonce: 5", Reply.NONCE_LOW),
    ("Transaction nonce is too low. Try incrementing the nonce.", Reply.NONCE_LOW),
    ("nonce too high: tx nonce 9, gapped nonce 5", Reply.NONCE_HIGH),
    ("An invalid transaction with a lower nonce exists", Reply.NONCE_HIGH),
    ("replacement transaction underpriced", Reply.REPLACEMENT_UNDERPRICED),
    ("INTERNAL_ERROR: could not replace existing tx", Reply.REPLACEMENT_UNDERPRICED),
    ("transaction underpriced", Reply.UNDERPRICED),
    ("max fee per gas less than block base fee: address 0x0", Reply.UNDERPRICED),
    ("Gas price below current base fee", Reply.UNDERPRICED),
    ("txpool is full", Reply.POOL_BUSY),
    ("baseFee sub-pool is full", Reply.POOL_BUSY),
    ("Insufficient funds for gas * price + value", Reply.FUNDS),
    ("Upfront cost exceeds account balance", Reply.FUNDS),
    ("tx fee (2.00 ether) exceeds the configured cap (1.00 ether)", Reply.NODE_FEE_CAP),
    ("intrinsic gas too low: gas 20000, minimum needed 21000", Reply.BAD_GAS),
    ("transaction gas limit too high (cap: 16777216, tx: 16777217)", Reply.BAD_GAS),
    ("Transaction gas limit exceeds block gas limit", Reply.BAD_GAS),
    ("invalid sender", Reply.BAD_TX),
    ("unknown transaction type", Reply.BAD_TX),
    ("Initial sync is still in progress", Reply.NODE_NOT_READY),
    ("the answer is 42", Reply.AMBIGUOUS),
    ("", Reply.AMBIGUOUS),
]


@pytest.mark.parametrize(("message", "reply"), DIALECTS)
def test_classify__dialect__class(message: str, reply: Reply) -> None:
    assert classify(message) is reply


def test_classify__letters_and_spaces__do_not_matter() -> None:
    assert classify("  NONCE   Too\nLow ") is Reply.NONCE_LOW
