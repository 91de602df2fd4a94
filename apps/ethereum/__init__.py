"""The one chain package: JSON-RPC with failover, the money horizon, Lido's ABI, reverts, addresses and constants.

Used by protocols, relayer and devnet; the pool takes its constants from here. It knows no service.
"""
