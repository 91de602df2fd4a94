"""Quotes: limits, cost and expected time of a request, and how good past estimates were."""
