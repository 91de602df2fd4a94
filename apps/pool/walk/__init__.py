"""The walk: rewards and books in chain order, one item after the other, in one serial lane for each pool."""
