"""Who may call, and what for: the shared keys of a service's settings, and named keys of a file that is read again when it
changes.

The file (`API_KEYS_FILE`, TOML) holds a key a line, by its SHA-256 alone, so that who reads the file cannot call:

    bff = {sha256 = "…", scopes = ["read", "write"], rate_per_minute = 6000, expires = 2027-01-01T00:00:00Z}

`sha256` may be a list while a key is rotated: both are the same caller. A key is 32 random bytes, which no one finds by
trying, so a fast digest is enough. What is in memory is looked up by digest: the time that takes tells nothing of a key.
"""

import hashlib
import hmac
import re
import secrets
import threading
import time
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

KEY_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)
# How often the file is looked at; a key that was struck off is refused after that.
LOOK_SEC = 1.0
# A file that was written just now may be written again within one tick of its clock.
SETTLED_SEC = 2.0
DEFAULT_RATE_PER_MINUTE = 6_000

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_FIELDS = frozenset({"sha256", "scopes", "expires", "rate_per_minute"})


class Scope(StrEnum):
    """What a key may do. None contains another: ops who read hold both."""

    READ = "read"
    WRITE = "write"
    OPS = "ops"


@dataclass(frozen=True)
class Caller:
    """Whose key a call came with. A shared key's name is that of its setting; it has every scope and no limit."""

    name: str
    scopes: frozenset[Scope] = frozenset(Scope)
    named: bool = False
    rate_per_minute: int | None = None
    expires: datetime | None = None

    def expired(self) -> bool:
        return self.expires is not None and self.expires <= datetime.now(UTC)


class KeysFileRefused(Exception):
    """The file is not as it must be. The message names key and field; it never repeats what stands there."""


class KeyRing:
    """The keys that a service accepts. Thread-safe."""

    def __init__(self, shared: Sequence[str], shared_name: str, path: Path | None = None) -> None:
        """Raises `KeysFileRefused`: a service does not start on a file that it cannot read."""
        self._shared = [key.encode() for key in shared]
        self._shared_caller = Caller(shared_name)
        self._path = path
        self._looking = threading.Lock()
        self._looked_at = time.monotonic()
        self._seen: tuple[int, ...] | None = None
        self._refusal: str | None = None
        self._named: Mapping[str, Caller] = {}
        if path is not None:
            self._named, self._seen = _read(path)

    def find(self, offered: str | None) -> Caller | None:
        """Whose key it is. Compared with every shared key, always all of them, so that timing tells nothing."""
        key = (offered or "").encode()
        matches = [hmac.compare_digest(key, shared) for shared in self._shared]
        if not key:
            return None
        if any(matches):
            return self._shared_caller
        if self._path is None:
            return None
        self._look(self._path)
        return self._named.get(hashlib.sha256(key).hexdigest())

    def refusal(self) -> str | None:
        """Why the file's last change was not taken; None where it was. The keys of before stay in force meanwhile."""
        if self._path is not None:
            self._look(self._path)
        return self._refusal

    def _look(self, path: Path) -> None:
        now = time.monotonic()
        if now - self._looked_at < LOOK_SEC or not self._looking.acquire(blocking=False):
            return
        try:
            self._looked_at = now
            if self._seen is not None and _signature(path) == self._seen:
                return
            self._named, self._seen = _read(path)
            if self._refusal is not None:
                log.info("api_keys_file_taken", names=len({caller.name for caller in self._named.values()}))
            self._refusal = None
        except KeysFileRefused as error:
            if str(error) != self._refusal:
                log.error("api_keys_file_refused", why=str(error))
            self._refusal, self._seen = str(error), None
        finally:
            self._looking.release()


def parse_keys(text: str) -> dict[str, Caller]:
    """Callers by the digests of their keys. Raises `KeysFileRefused`."""
    try:
        entries = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at [^()]*\)", str(error))
        raise KeysFileRefused(f"It is not TOML {place.group() if place else ''}".strip() + ".") from None
    found: dict[str, Caller] = {}
    for name, entry in entries.items():
        if not KEY_NAME.fullmatch(name):
            raise KeysFileRefused("A name must be 1 to 63 characters out of a-z 0-9 _ -, not starting with _ or -.")
        caller, digests = _caller(name, entry)
        for digest in digests:
            if digest in found:
                raise KeysFileRefused(f"{name}: the same key stands twice.")
            found[digest] = caller
    return found


def new_key() -> str:
    """A key that nobody has had; the prefix lets scanners of secrets know it."""
    return f"staking_{secrets.token_urlsafe(32)}"


def key_line(name: str, key: str, scopes: Iterable[Scope], **more: str) -> str:
    """The line of a key for the file; `more` are fields as TOML writes their values."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    listed = ", ".join(f'"{scope}"' for scope in scopes)
    rest = "".join(f", {field} = {value}" for field, value in more.items())
    return f'{name} = {{sha256 = "{digest}", scopes = [{listed}]{rest}}}'


def _read(path: Path) -> tuple[dict[str, Caller], tuple[int, ...] | None]:
    """The keys and the file's signature; None for the latter where the file is so fresh that it may change unseen."""
    try:
        before = _signature(path)
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise KeysFileRefused(f"It cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8'}).") from None
    if before != _signature(path):
        raise KeysFileRefused("It is being written.")
    settled = abs(time.time_ns() - before[0]) > SETTLED_SEC * 1e9
    return parse_keys(text), before if settled else None


def _signature(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError as error:
        raise KeysFileRefused(f"It cannot be read ({error.strerror}).") from None
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _caller(name: str, entry: object) -> tuple[Caller, list[str]]:
    if not isinstance(entry, dict):
        raise KeysFileRefused(f"{name}: must be a table, such as {{sha256 = …, scopes = …}}.")
    unknown = sorted(set(entry) - _FIELDS)
    if unknown:
        raise KeysFileRefused(f"{name}: unknown field; known are {', '.join(sorted(_FIELDS))}.")
    digests = entry.get("sha256")
    digests = [digests] if isinstance(digests, str) else digests
    if not isinstance(digests, list) or not digests or not all(_is_digest(digest) for digest in digests):
        raise KeysFileRefused(f"{name}.sha256: must be 64 hex digits in small letters, or a list of such.")
    scopes = entry.get("scopes")
    if not isinstance(scopes, list) or not scopes or not all(scope in list(Scope) for scope in scopes):
        raise KeysFileRefused(f"{name}.scopes: must be one or more of {', '.join(Scope)}, in a list.")
    expires = entry.get("expires")
    if expires is not None and (not isinstance(expires, datetime) or expires.tzinfo is None):
        raise KeysFileRefused(f"{name}.expires: must be a time with a zone, such as 2027-01-01T00:00:00Z.")
    rate = entry.get("rate_per_minute", DEFAULT_RATE_PER_MINUTE)
    if type(rate) is not int or rate < 1:
        raise KeysFileRefused(f"{name}.rate_per_minute: must be a whole number from 1 on.")
    return Caller(name, frozenset(map(Scope, scopes)), True, rate, expires), digests


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None
