"""The services of Staking and what they share."""
