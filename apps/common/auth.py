"""``X-Internal-Key``: who calls, whether that key may do this, and how often.

Every endpoint needs a scope (`scope_of`), so that a key for reading cannot write and a BFF's key cannot do what ops do.
"""

from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

from flask import Flask, Request, Response, g, has_request_context, request

from apps.common.auth_errors import RateLimited, ScopeNeeded
from apps.common.bodies import JsonObject
from apps.common.errors import InvalidInput, Unauthorized
from apps.common.keys import Caller, KeyRing, Scope
from apps.common.rate_limits import RateLimits, Taken

HEADER = "X-Internal-Key"
OPEN_PATHS = ("/status/", "/healthz", "/metrics", "/openapi.json", "/docs", "/favicon.ico")
# Whoever calls from this machine where no shared key is set; see the relayer.
LOOPBACK = Caller("loopback")
# Wrong keys that one address may offer in a minute before it is told to wait. A right key is never told so, whoever else
# calls from its address.
WRONG_KEYS_PER_MINUTE = 60

# Fields of ops' bodies that say who decides.
WHO_DECIDES = ("by", "requested_by")

Refused = Callable[[Caller], None]


def is_open(path: str) -> bool:
    """Whether a page needs no key: status, metrics, documentation."""
    return any(path == page or path.startswith(page.rstrip("/") + "/") for page in OPEN_PATHS)


def scope_of(app: Flask, request: Request) -> Scope | None:
    """What a key needs for a request: `Scope.READ` for GET, `Scope.WRITE` for any other method, unless its view says
    otherwise. None where there is no view."""
    if request.endpoint is None:
        return None
    by_method = Scope.READ if request.method in {"GET", "HEAD"} else Scope.WRITE
    found: Scope = getattr(app.view_functions[request.endpoint], "scope", by_method)
    return found


def require_key(
    app: Flask, ring: KeyRing, *, allow: Callable[[], bool] | None = None, on_ops_refused: Refused | None = None
) -> None:
    """Refuse every request without an accepted key of the right scope, but for status, metrics and documentation pages.

    `allow` is asked about a call without an accepted key; the relayer serves loopback callers where no shared key is set.
    `on_ops_refused` is told of a caller who wanted to do what only ops may.
    """
    limits, wrong_keys = RateLimits(), RateLimits()

    @app.before_request
    def check_key() -> None:
        if is_open(request.path):
            return
        offered = request.headers.get(HEADER)
        caller = ring.find(offered)
        if caller is None and allow is not None and allow():
            caller = LOOPBACK
        if caller is None:
            if offered:
                wait = wrong_keys.take(_network(request.remote_addr), WRONG_KEYS_PER_MINUTE).wait_sec
                if wait:
                    raise RateLimited("Too many wrong keys from this address.", retry_after=wait)
            raise Unauthorized
        if caller.expired():
            raise Unauthorized("This key has expired; ask for a new one.")
        g.caller = caller
        if caller.rate_per_minute is not None:
            g.taken = taken = limits.take(caller.name, caller.rate_per_minute)
            if taken.wait_sec:
                raise RateLimited(retry_after=taken.wait_sec)
        needed = scope_of(app, request)
        if needed is not None and needed not in caller.scopes:
            if needed is Scope.OPS and on_ops_refused is not None:
                on_ops_refused(caller)
            raise _scope_needed(caller, needed)

    @app.after_request
    def describe_limit(response: Response) -> Response:
        taken: Taken | None = g.get("taken")
        if taken is not None:
            taken.describe(response)
        return response


def current_caller() -> Caller | None:
    """Whose key the present request came with; None outside of one."""
    return g.get("caller") if has_request_context() else None


def require_scope(scope: Scope) -> None:
    """Refuse the present request unless its key has a scope: for what depends on more than the endpoint. Raises
    `ScopeNeeded`."""
    caller = current_caller()
    if caller is not None and scope not in caller.scopes:
        raise _scope_needed(caller, scope)


def refuse_other_names(body: JsonObject) -> None:
    """Refuse a body that says that somebody else decides. A named key is somebody's own, so it speaks for nobody else; who
    calls with a shared key says who they are. Raises `InvalidInput` naming the field."""
    caller = current_caller()
    if caller is None or not caller.named:
        return
    wrong = [field for field in WHO_DECIDES if field in body and body[field] != caller.name]
    if wrong:
        told = f"Must be {caller.name}, the name of the key that this call came with."
        raise InvalidInput(errors={field: [told] for field in wrong})


def _scope_needed(caller: Caller, needed: Scope) -> ScopeNeeded:
    held = ", ".join(scope for scope in Scope if scope in caller.scopes)
    return ScopeNeeded(f"This needs a key with the scope {needed}; that of this call has {held}.")


def _network(address: str | None) -> str:
    """An address, or of IPv6 the /64 that one subscriber has whole."""
    try:
        found = ip_address(address or "")
    except ValueError:
        return "unknown"
    return str(int(found) >> 64) if isinstance(found, IPv6Address) else str(found)
