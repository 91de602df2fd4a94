"""Reconciliation: the books against the chain, and the ledger against the reward index user by user."""
