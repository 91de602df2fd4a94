"""Webhooks: the feed's events sent to endpoints of callers, signed, in the order of each request, until they are taken."""
