"""Users of the pool: who they are, what holds them back, what they prefer, and the claims that follow from it."""
