"""What the pool tells of money: a user's statement over time, and a wei's way to the chain and back. Nothing here writes."""
