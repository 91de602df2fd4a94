"""What the relayer reads from the chain, and how far it believes it."""
