"""Durable flows on Postgres rows, in any trade: a row, its lease, one step for each status, and a runner.

See `docs/flow.md`. Imports `apps.common` only, and knows nothing of what its flows are about.
"""
