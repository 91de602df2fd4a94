"""The relayer's tables and the history of its messages."""
