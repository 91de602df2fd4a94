"""The local stack: the `staking` command, its supervisor, its demo."""
