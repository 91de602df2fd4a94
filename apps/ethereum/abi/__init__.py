"""Lido's ABI, only the entries that are used; read by `apps.ethereum.contracts`."""
