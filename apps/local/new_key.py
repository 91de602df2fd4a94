"""A new named key and its line, checked as the services will check it."""

from apps.common.keys import KeysFileRefused, Scope, key_line, new_key, parse_keys
from apps.common.wire import parse_time
from apps.local.errors import LocalError


def make_key(name: str, scopes: str, expires: str | None, rate_per_minute: int | None) -> tuple[str, str]:
    """The key, and the line for the file. Raises `LocalError` where the services would refuse the line."""
    more: dict[str, str] = {}
    try:
        if expires is not None:
            more["expires"] = parse_time(expires).isoformat().replace("+00:00", "Z")
        wanted = [Scope(scope.strip()) for scope in scopes.split(",")]
    except ValueError as error:
        raise LocalError(str(error), "Scopes are read, write, ops; a time is as 2027-01-01T00:00:00Z.") from error
    if rate_per_minute is not None:
        more["rate_per_minute"] = str(rate_per_minute)
    key = new_key()
    line = key_line(name, key, wanted, **more)
    try:
        parse_keys(line)
    except KeysFileRefused as error:
        raise LocalError(str(error), "Give another --name, as a word in small letters.") from error
    return key, line
