"""Refusals at the door: of keys that may not do this, or not so often."""

from apps.common.errors import Forbidden, TooManyRequests


class ScopeNeeded(Forbidden):
    """The key of this call may not do this; the detail names the scope that is needed."""

    code = "scope_needed"


class RateLimited(TooManyRequests):
    """This key has used up its calls for now; go on after Retry-After seconds."""

    code = "rate_limited"
