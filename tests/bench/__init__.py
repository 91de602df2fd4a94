"""Measurements: one module a subject, run as ``make bench NAME=<module>``. Figures, no assertions on time."""
