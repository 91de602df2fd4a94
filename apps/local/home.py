"""STAKING_HOME: where one stack keeps its data, its generated secrets and its choice of ports. Two homes, two
stacks."""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from apps.local.errors import LocalError


@dataclass
class State:
    """What a home remembers between runs; holds secrets, so its file is readable by its owner alone."""

    internal_api_key: str
    relayer_api_key: str
    postgres_password: str
    supervisor_password: str
    operator_key: str
    custody_key: str
    separate_custody: bool
    ports: dict[str, int] = field(default_factory=dict)
    external: dict[str, str] = field(default_factory=dict)
    pool_id: str = "eth_native"
    deployment: dict[str, Any] | None = None  # as it was written beside the chain
    gas_float_wei: int = 0

    def adopt_environment(self) -> None:
        """Remember which parts are replaced by a URL in the environment, so that later commands know it too."""
        named = {"postgres": "STAKING_POSTGRES_URL", "broker": "CELERY_BROKER_URL", "chain": "ETH_RPC_URL"}
        self.external = {part: os.environ[name] for part, name in named.items() if os.environ.get(name)}
        self.pool_id = os.environ.get("POOL_ID") or self.pool_id

    @property
    def operator(self) -> str:
        return _address_of(self.operator_key)

    @property
    def custody(self) -> str:
        return _address_of(self.custody_key) if self.separate_custody else self.operator

    def signers(self) -> list[str]:
        """The addresses that the relayer signs for."""
        return [self.operator] + ([self.custody] if self.separate_custody else [])


class Home:
    """A directory and the `State` kept in it."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.logs = self.path / "logs"
        self.run = self.path / "run"
        self._file = self.path / "stack.json"

    @classmethod
    def from_environment(cls) -> "Home":
        return cls(Path(os.environ.get("STAKING_HOME") or ".staking"))

    def said_by(self, preparation: str) -> Path:
        """Where a preparation that failed leaves what it says about it."""
        return self.run / f"{preparation}.json"

    def exists(self) -> bool:
        return self._file.is_file()

    def create(self, *, separate_custody: bool) -> State:
        """Read the state, or make a new one with secrets of its own."""
        try:
            for directory in (self.path, self.logs, self.run):
                directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LocalError(
                f"The directory {self.path} cannot be made: {error.strerror}.",
                "Set STAKING_HOME to a directory that you may write.",
            ) from error
        if self.exists():
            return self.load()
        state = State(
            internal_api_key=secrets.token_urlsafe(24),
            relayer_api_key=secrets.token_urlsafe(24),
            postgres_password=secrets.token_urlsafe(18),
            supervisor_password=secrets.token_urlsafe(18),
            operator_key=_new_key(),
            custody_key=_new_key(),
            separate_custody=separate_custody,
        )
        self.save(state)
        return state

    def load(self) -> State:
        try:
            return State(**json.loads(self._file.read_text()))
        except (ValueError, TypeError) as error:
            raise LocalError(
                f"{self._file} cannot be read.", "Remove this STAKING_HOME and start again; it holds test money only."
            ) from error

    def save(self, state: State) -> None:
        """Replace the file in one step: a crash leaves the old one or the new one."""
        temporary = self._file.with_suffix(".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as handle:
            json.dump(asdict(state), handle, indent=1)
        temporary.replace(self._file)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One `up` or `down` at a time in a home."""
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / "lock", "w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise LocalError(
                    f"Another staking command is starting or stopping the stack in {self.path}.",
                    "Wait for it, or set STAKING_HOME to use a second stack.",
                ) from error
            yield


def _new_key() -> str:
    return "0x" + secrets.token_hex(32)


def _address_of(key: str) -> str:
    from eth_keys.datatypes import PrivateKey  # here, as most commands read a home and need no address

    return str(PrivateKey(bytes.fromhex(key.removeprefix("0x"))).public_key.to_checksum_address())
