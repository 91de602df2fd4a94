"""The flows of the pool: one module each, from the POST to its end; what they share stands beside them."""
