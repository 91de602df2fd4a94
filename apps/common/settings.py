"""The one settings loader: ``.env`` beside the service, real environment variables win, ``NAME_FILE`` reads a secret.

Each service states its names once in a frozen dataclass built from a `SettingsReader`; all missing and wrong names are
reported together, so that a deployment is mended in one go.
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from dotenv import dotenv_values

from apps.common.errors import NotConfigured
from apps.common.wei import parse_wei
from apps.common.wire import POOL_ID, POOL_ID_RULE

T = TypeVar("T")

SAMPLE_INTERNAL_KEY = "change-me"
# Passwords of the sample files, and the chains that development nodes make.
SAMPLE_PASSWORDS = frozenset({"change-me", "staking"})
DEVNET_CHAIN_IDS = frozenset({1337, 31337})
SHORTEST_KEY = 16
# Ends of names that no host outside has.
_INSIDE = (".internal", ".local", ".localhost", ".lan", ".svc", ".home.arpa")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_REQUIRED = object()
_NO_KEY = "must be set to a secret of your own"


class SettingsError(Exception):
    """One or more settings are missing or wrong; the message lists them all."""

    def __init__(self, service: str, faults: list[str]) -> None:
        self.faults = faults
        super().__init__(f"{service} cannot start:\n" + "\n".join(f"  - {fault}" for fault in faults))


class SettingsReader:
    """Reads names one by one and remembers every fault until `finish`."""

    def __init__(self, service: str, directory: Path) -> None:
        self.service = service
        # Kept to this reader: put into the process's environment, one service's file would answer for the next.
        self._file = dotenv_values(directory / ".env", encoding="utf-8")
        self._faults: list[str] = []
        self._production = False

    def text(self, name: str, default: str | None = None) -> str:
        return self._read(name, str, _REQUIRED if default is None else default)

    def optional_text(self, name: str) -> str | None:
        return self._read(name, str, None) or None

    def integer(self, name: str, default: int | None = None, *, minimum: int = 0) -> int:
        def parse(text: str) -> int:
            if not re.fullmatch(r"-?[0-9]+", text):
                raise ValueError("must be a whole number")
            if int(text) < minimum:
                raise ValueError(f"must be at least {minimum}")
            return int(text)

        return self._read(name, parse, _REQUIRED if default is None else default)

    def seconds(self, name: str, default: float) -> float:
        def parse(text: str) -> float:
            if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) or float(text) <= 0:
                raise ValueError("must be a positive number of seconds")
            return float(text)

        return self._read(name, parse, default)

    def wei(self, name: str, default: int | None = None) -> int:
        return self._read(name, parse_wei, _REQUIRED if default is None else default)

    def choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        def parse(text: str) -> str:
            if text not in choices:
                raise ValueError(f"must be one of {', '.join(choices)}")
            return text

        return self._read(name, parse, default)

    def flag(self, name: str, *, default: bool) -> bool:
        return self.choice(name, ("true", "false", "1", "0"), "true" if default else "false") in {"true", "1"}

    def urls(self, name: str, default: str | None = None) -> tuple[str, ...]:
        def parse(text: str) -> tuple[str, ...]:
            urls = tuple(part.strip().rstrip("/") for part in text.split(",") if part.strip())
            if not urls or any(urlsplit(url).scheme not in {"http", "https"} for url in urls):
                raise ValueError("must be one or more http(s) URLs, comma-separated")
            self._refuse_plain_http(urls)
            return urls

        return self._read(name, parse, _REQUIRED if default is None else parse(default))

    def url(self, name: str, default: str | None = None) -> str:
        urls = self.urls(name, default)
        return urls[0] if urls else ""

    def database_url(self, name: str = "DATABASE_URL") -> str:
        def parse(text: str) -> str:
            url = normalise_database_url(text)
            self.refuse_sample_password(urlsplit(text).password)
            return url

        return self._read(name, parse, _REQUIRED)

    def chain_id(self, default: int | None = None, *, minimum: int = 0) -> int:
        """``CHAIN_ID``; never that of a development node in production."""
        found = self.integer("CHAIN_ID", default, minimum=minimum)
        if self._production and found in DEVNET_CHAIN_IDS:
            self.fault("CHAIN_ID", f"is {found}, a development node's, which no production may be on")
        return found

    def pool_id(self, name: str = "POOL_ID") -> str:
        def parse(text: str) -> str:
            if not POOL_ID.fullmatch(text):
                raise ValueError(POOL_ID_RULE[0].lower() + POOL_ID_RULE[1:])
            return text

        return self._read(name, parse, "eth_native")

    def broker_url(self) -> str:
        """``CELERY_BROKER_URL``: read by what publishes hints or takes them."""
        return self.text("CELERY_BROKER_URL", "redis://127.0.0.1:6379/0")

    def bind_address(self) -> str:
        """``HTTP_BIND_ADDRESS``: where the web server listens; this machine alone unless said otherwise."""

        def parse(text: str) -> str:
            return str(ip_address(text))

        return self._read("HTTP_BIND_ADDRESS", parse, "127.0.0.1")

    def internal_keys(self, app_env: str) -> tuple[str, ...]:
        """``INTERNAL_API_KEY``: several keys, comma-separated, are all accepted while one is rotated out."""
        keys = self.keys("INTERNAL_API_KEY", app_env)
        if not keys and app_env != "production":
            self.fault("INTERNAL_API_KEY", "is missing")
        return keys

    def keys(self, name: str, app_env: str) -> tuple[str, ...]:
        """Shared keys, comma-separated. In production there must be one, and none may be the sample or short."""
        raw = self._read(name, str, "") or ""
        keys = tuple(key.strip() for key in raw.split(",") if key.strip())
        if app_env == "production":
            self.refuse_weak_keys(name, keys)
            if not keys:
                self.fault(name, f"{_NO_KEY} when APP_ENV=production")
        return keys

    def refuse_weak_keys(self, name: str, keys: Sequence[str]) -> None:
        """Note a fault where a key can be guessed: that of the sample files, or one that is short."""
        if SAMPLE_INTERNAL_KEY in keys:
            self.fault(name, f"{_NO_KEY} when APP_ENV=production")
        elif any(len(key) < SHORTEST_KEY for key in keys):
            self.fault(name, f"holds a key of fewer than {SHORTEST_KEY} characters, which APP_ENV=production refuses")

    def refuse_sample_password(self, password: str | None) -> None:
        """Raise `ValueError` for a password of the sample files, in production."""
        if self._production and password in SAMPLE_PASSWORDS:
            raise ValueError("holds the password of the sample files, which APP_ENV=production refuses")

    def api_keys_file(self) -> Path | None:
        """``API_KEYS_FILE``: named keys, see `apps.common.keys`. Read by web services alone, when they are built."""
        found: Path | None = self._read("API_KEYS_FILE", Path, None)
        return found

    def app_env(self) -> str:
        found = self.choice("APP_ENV", ("development", "test", "production"), "development")
        self._production = found == "production"
        return found

    def fault(self, name: str, message: str) -> None:
        self._faults.append(f"{name} {message}")

    def finish(self) -> None:
        """Raise `SettingsError` with every fault found so far."""
        if self._faults:
            raise SettingsError(self.service, self._faults)

    def _refuse_plain_http(self, urls: Sequence[str]) -> None:
        """Raise `ValueError` where, in production, a URL without TLS leads out of the house: what goes over it can be read,
        keys included, and answered by anybody on the way."""
        if not self._production:
            return
        let = {host.strip() for host in (self._raw("PLAIN_HTTP_HOSTS") or "").split(",")}
        for url in map(urlsplit, urls):
            host = url.hostname or ""
            if url.scheme == "http" and host not in let and not _is_inside(host):
                raise ValueError(
                    f"leads to {host} over http, which APP_ENV=production refuses: use https, or name the host in "
                    "PLAIN_HTTP_HOSTS if the way to it is yours"
                )

    def _raw(self, name: str) -> str | None:
        """The text of a name: the environment before the file, and in each ``NAME_FILE`` before ``NAME``."""
        for source in (os.environ, self._file):
            path = source.get(f"{name}_FILE")
            if path:
                return Path(path).read_text(encoding="utf-8").strip()
            value = source.get(name)
            if value is not None:
                return value.strip()
        return None

    def _read(self, name: str, parse: Callable[[str], T], default: object) -> T:
        try:
            raw = self._raw(name)
        except OSError as error:
            self.fault(f"{name}_FILE", f"names a file that cannot be read ({error.strerror})")
            return None  # type: ignore[return-value]  # finish() raises before the settings are used
        if raw is None or raw == "":
            if default is _REQUIRED:
                self.fault(name, "is missing")
            return default  # type: ignore[return-value]
        try:
            return parse(raw)
        except ValueError as error:
            self.fault(name, str(error))
            return None  # type: ignore[return-value]


def _is_inside(host: str) -> bool:
    """Whether a host is this machine, or one of a network that is not the world's."""
    try:
        return not ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith(_INSIDE)


def normalise_database_url(url: str) -> str:
    """Accept ``postgres://`` and ``postgresql://`` with any query, and name the psycopg2 driver.

    SQLAlchemy 2.1 reads a bare ``postgresql://`` as psycopg 3, knows no ``postgres://`` at all, and takes several hosts
    (``postgres://user:password@one:5432,two:5432/database``) only from the query.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"postgres", "postgresql", "postgresql+psycopg2"} or not parts.path.strip("/"):
        raise ValueError("must be postgres://user:password@host:port/database")
    account, at, places = parts.netloc.rpartition("@")
    query = parse_qsl(parts.query)
    if "," in places:
        query = [("host", place) for place in places.split(",")] + query
        places = ""
    text = urlencode(query)
    return f"postgresql+psycopg2://{account}{at}{places}{parts.path}" + (f"?{text}" if text else "")


def compose_database_url(host: str, port: int, user: str, password: str, name: str) -> str:
    """Build the URL from the relayer's five ``DB_*`` names; the host may be several, comma-separated."""
    places = ",".join(f"{one.strip()}:{port}" for one in host.split(","))
    return normalise_database_url(
        f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@{places}/{quote(name, safe='')}"
    )


def require_address(name: str, value: str | None) -> str:
    """Return a usable address, checksummed by the caller, or raise `NotConfigured` naming the setting.

    Sample files carry placeholders; a service must start also while an address that it will need is not set.
    """
    if not value or not _ADDRESS.fullmatch(value) or int(value, 16) == 0:
        raise NotConfigured(f"{name} holds no usable address; set it to a 0x address of 40 hex digits.")
    return value


@dataclass(frozen=True)
class BaseSettings:
    """What every web service reads."""

    app_env: str
    http_port: int
    internal_keys: tuple[str, ...]
    database_url: str
    pool_id: str
    http_bind_address: str = field(default="127.0.0.1", kw_only=True)
    api_keys_file: Path | None = field(default=None, kw_only=True)
