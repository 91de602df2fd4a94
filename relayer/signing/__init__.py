"""What may be signed, by which key, and within which caps."""
