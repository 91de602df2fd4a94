"""Lido on your desk: contracts that behave like the real ones, their deployment, and the oracle's buttons."""
