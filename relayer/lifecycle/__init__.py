"""A message from its nonce to its end: the steps of a tick."""
