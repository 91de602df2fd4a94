"""Numbers that Ethereum and Lido have set, each with where it is from. Amounts are wei. Nothing here imports web3."""

# The most gas one transaction may name (EIP-7825), and what a plain transfer of ETH uses.
MAX_GAS = 16_777_216
TRANSFER_GAS = 21_000

# A block comes at most once in so many seconds (beacon chain, SECONDS_PER_SLOT).
SLOT_SEC = 12

ZERO_ADDRESS = "0x" + "00" * 20

# Lido gives its share rate, ether per share, scaled by this.
RAY = 10**27

# What one withdrawal request may ask for: WithdrawalQueue.MIN_STETH_WITHDRAWAL_AMOUNT and its MAX.
MIN_WITHDRAWAL_WEI = 100
MAX_WITHDRAWAL_WEI = 1000 * 10**18

# How many withdrawals one transaction requests or claims at most: a bound of this project, well below MAX_GAS.
MAX_ELEMENTS = 100
