"""One place for the chain: JSON-RPC batches with failover, the money horizon, and what nodes say in which words.

Used by protocols, relayer and devnet; knows no service.
"""
