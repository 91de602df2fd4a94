"""The programs of the stack: what each runs, with which environment. A secret is in the environment of its users
alone."""

import hashlib
import math
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from apps.local import tools
from apps.local.home import Home, State
from apps.local.postgres import DATABASES, Postgres

ROOT = Path(__file__).parents[2]
WEB = ("ledger", "protocols", "rewards", "pool", "relayer")
WORKERS = ("pool-worker", "relayer-worker")
CONTRACTS = "deploy-contracts"
GAS_FLOAT = "post-gas-float"
HOST = "127.0.0.1"
# The walk reads the state at its cursor, and a stack on a busy machine lags. Each state costs a hundred bytes a block that
# the chain is long, in memory and in the file that anvil writes every ten seconds.
CHAIN_STATES_KEPT_SEC = 120
# A desk's rhythm: a life takes seconds, not days. Production's defaults stand in celeryconfig.py and the settings.
DESK = {
    "STAKE_BATCH_THRESHOLD_WEI": str(10**18),
    "STAKE_BATCH_MAX_WAIT_SEC": "10",
    "UNSTAKE_BATCH_MAX_WAIT_SEC": "3",
    "BATCH_INTERVAL_SEC": "1",
    "REWARD_DISTRIBUTION_INTERVAL_SEC": "2",
    "CLAIM_POLL_INTERVAL_SEC": "2",
    "RECONCILIATION_INTERVAL_SEC": "60",
    "HTTP_CLIENT_TIMEOUT_SEC": "3",
    "CONFIRMATIONS": "2",
    "PAYOUT_ADDRESS_DELAY_SEC": "0",
}
# What a program may take from the environment of whoever types `staking up`, beyond the rhythm above.
_INHERITED = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "TZ",
    "VIRTUAL_ENV",
    "COVERAGE_PROCESS_START",
    "STAKING_CRASHPOINT",
)
_OVERRIDES = (
    "UNSTAKE_BATCH_THRESHOLD_WEI",
    "REWARD_FEE_BPS",
    "REWARD_SOURCE",
    "SWEEP_INTERVAL_SEC",
    "RELAYER_PUMP_INTERVAL_SEC",
    "PAUSE_BATCHES_ON_DRIFT",
    "OPS_FOUR_EYES",
    "MONEY_HORIZON",
    "LOG_RANGE_BLOCKS",
    "GAS_LIMIT",
    "FALLBACK_GAS_TIP_CAP_WEI",
    "MAX_VALUE_PER_TX_WEI",
    "MAX_VALUE_PER_DAY_WEI",
    "MAX_PAYOUT_PER_TX_WEI",
    "MAX_PAYOUT_PER_DAY_WEI",
    "PAYOUT_USER_DAY_LIMIT_WEI",
    "PAYOUT_DAY_LIMIT_WEI",
    "PAYOUT_FOUR_EYES_WEI",
    "APP_ENV",
)
# What is read when a program starts, to make its command or to prepare the chain.
_READ = ("ANVIL_BIN", "STAKING_BLOCK_TIME", "LIDO_STETH_ADDRESS", "LIDO_WITHDRAWAL_QUEUE_ADDRESS")


@dataclass(frozen=True)
class Program:
    """One supervised process; `command` and `environment` are worked out when it starts, as its home then says."""

    name: str
    command: Callable[[], list[str]]
    environment: Callable[[], dict[str, str]]
    stop_signal: str = "TERM"
    stop_wait_sec: int = 15
    # One that does its work and ends; the stack waits for it.
    once: bool = False


class Programs:
    """All programs of one home, in the order in which they are started."""

    def __init__(self, home: Home, state: State) -> None:
        self.home = home
        self.state = state
        self.postgres = Postgres(home.path / "postgres", state.ports.get("postgres", 0), state.postgres_password)
        self.external_postgres = state.external.get("postgres", "")
        self.external_broker = state.external.get("broker", "")
        self.external_chain = state.external.get("chain", "")

    def all(self) -> list[Program]:
        return [*self.parts(), *self.preparations(), *self.services()]

    def parts(self) -> list[Program]:
        """Database, broker and chain, as far as they are ours."""
        found = []
        if not self.external_postgres:
            # INT: fast shutdown; TERM would wait for every client to leave.
            found.append(Program("postgres", self.postgres.command, _base_environment, "INT", 20))
        if not self.external_broker:
            found.append(Program("valkey", self._valkey, _base_environment))
        if not self.external_chain:
            # INT: anvil writes its state on Ctrl-C.
            found.append(Program("anvil", self._anvil, _base_environment, "INT", 20))
        return found

    def preparations(self) -> list[Program]:
        """What is done once at each start: databases migrated, contracts put on the chain, gas money booked."""
        names = [*(migration_of(name) for name in DATABASES), CONTRACTS, GAS_FLOAT]
        return [Program(name, _module("apps.local.prepare", name), self._preparation, once=True) for name in names]

    def services(self) -> list[Program]:
        quiet = ["--loglevel", "WARNING", "--without-gossip", "--without-mingle"]
        pool = ["-A", "tasks", "worker", "-Q", "pool,webhooks", "-c", "2", "-n", "pool@%h", *quiet]
        relayer = ["-A", "relayer.tasks:celery", "worker", "-Q", "relayer", "-c", "1", "-n", "relayer@%h", *quiet]
        flower = ["flower", f"--address={HOST}", f"--port={self.state.ports.get('flower', 0)}", "--logging=warning"]
        beat = ["-A", "tasks", "beat", "--loglevel", "WARNING"]
        return [
            *(Program(name, _module(_package(name)), self._environment(name)) for name in WEB),
            Program("pool-worker", _module("celery", *pool), self._environment("pool"), stop_wait_sec=30),
            Program("relayer-worker", _module("celery", *relayer), self._environment("relayer"), stop_wait_sec=30),
            Program("beat", _module("celery", *beat), self._environment("pool")),
            Program("flower", _module("celery", "-A", "tasks", *flower), self._flower_environment),
        ]

    def database_url(self, name: str) -> str:
        if not self.external_postgres:
            return self.postgres.url(name)
        return urlsplit(self.external_postgres)._replace(path=f"/{name}").geturl()

    @property
    def server_url(self) -> str:
        return self.external_postgres or self.postgres.url("postgres")

    @property
    def broker_url(self) -> str:
        return self.external_broker or f"redis://{HOST}:{self.state.ports['valkey']}/0"

    @property
    def rpc_url(self) -> str:
        return self.external_chain or f"http://{HOST}:{self.state.ports['anvil']}"

    def service_url(self, name: str) -> str:
        return f"http://{HOST}:{self.state.ports[name]}"

    def _valkey(self) -> list[str]:
        directory = self.home.path / "valkey"
        directory.mkdir(exist_ok=True)
        listen = ["--port", str(self.state.ports["valkey"]), "--bind", HOST, "--dir", str(directory)]
        # A broker that evicts or forgets loses hints; the sweep heals that, but it must not be the normal case.
        durable = ["--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction", "--save", ""]
        return [str(tools.valkey_server()), *listen, *durable, "--daemonize", "no"]

    def _anvil(self) -> list[str]:
        listen = ["--host", HOST, "--port", str(self.state.ports["anvil"]), "--chain-id", "31337"]
        kept = ["--state", str(self.home.path / "anvil.json"), "--state-interval", "10", "--preserve-historical-states"]
        # From Prague on, each state would hold a contract's copy of 8,191 hashes besides.
        block_sec = os.environ.get("STAKING_BLOCK_TIME", "1")
        states = math.ceil(CHAIN_STATES_KEPT_SEC / float(block_sec))
        kept += ["--prune-history", str(states), "--hardfork", "cancun"]
        return [str(tools.anvil()), *listen, *kept, "--block-time", block_sec, "--silent"]

    def _preparation(self) -> dict[str, str]:
        return {**_base_environment(), **_of_environment(_READ), "STAKING_HOME": str(self.home.path)}

    def _environment(self, name: str) -> Callable[[], dict[str, str]]:
        def environment() -> dict[str, str]:
            specific = self._relayer_settings() if name == "relayer" else self._service_settings(name)
            return {**_base_environment(), **_rhythm(), "CELERY_BROKER_URL": self.broker_url, **specific}

        return environment

    def _flower_environment(self) -> dict[str, str]:
        # Its API shows what its pages show; both listen on loopback only.
        return {**_base_environment(), "CELERY_BROKER_URL": self.broker_url, "FLOWER_UNAUTHENTICATED_API": "true"}

    def _service_settings(self, name: str) -> dict[str, str]:
        settings = {
            "DATABASE_URL": self.database_url(name),
            "HTTP_PORT": str(self.state.ports[name]),
            "POOL_ID": self.state.pool_id,
            "INTERNAL_API_KEY": self.state.internal_api_key,
        }
        if name in {"pool", "protocols"}:
            settings |= {f"{other.upper()}_BASE_URL": self.service_url(other) for other in WEB} | self._addresses()
        if name == "protocols":
            settings["ETH_RPC_URL"] = self.rpc_url
        if name == "pool":
            settings["RELAYER_HTTP_API_KEY"] = self.state.relayer_api_key
            # Of this home alone, and the same at each start: what is encrypted under it is kept.
            key = hashlib.sha256(f"webhooks:{self.state.internal_api_key}".encode()).hexdigest()
            settings |= {"WEBHOOK_SECRET_KEY": key, "WEBHOOK_ALLOW_PRIVATE": "true"}
        return settings

    def _relayer_settings(self) -> dict[str, str]:
        database = urlsplit(self.database_url("relayer"))
        keys = [self.state.operator_key] + ([self.state.custody_key] if self.state.separate_custody else [])
        return {
            "DB_HOST": database.hostname or "",
            "DB_PORT": str(database.port or 5432),
            "DB_USER": database.username or "",
            "DB_PASSWORD": database.password or "",
            "DB_NAME": "relayer",
            "HTTP_PORT": str(self.state.ports["relayer"]),
            "RPC_URL": self.rpc_url,
            "CHAIN_ID": str((self.state.deployment or {}).get("chain_id", 31337)),
            "SIGNER_KEYS": ",".join(keys),
            "RELAYER_HTTP_API_KEY": self.state.relayer_api_key,
            **self._addresses(),
        }

    def _addresses(self) -> dict[str, str]:
        deployment = self.state.deployment or {}
        return {
            "CUSTODY_ETH_ADDRESS": self.state.custody,
            "RELAYER_OPERATOR_ADDRESS": self.state.operator,
            "LIDO_STETH_ADDRESS": str(deployment.get("steth", "")),
            "LIDO_WITHDRAWAL_QUEUE_ADDRESS": str(deployment.get("withdrawal_queue", "")),
        }


def supervisor_environment(home: Home) -> dict[str, str]:
    """The supervisor's own: what its programs are given, and what their commands are made of."""
    asked = _of_environment((*DESK, *_OVERRIDES, *_READ, "PYTHONDONTWRITEBYTECODE", "LD_LIBRARY_PATH"))
    return {**_base_environment(), **asked, "STAKING_HOME": str(home.path)}


def migration_of(database: str) -> str:
    """The name of the program that migrates a database."""
    return f"migrate-{database}"


def _package(service: str) -> str:
    return service if service == "relayer" else f"apps.{service}"


def _module(*words: str) -> Callable[[], list[str]]:
    return lambda: [sys.executable, "-m", *words]


def _base_environment() -> dict[str, str]:
    """No more of the caller's environment than a program needs, so that no secret of theirs slips in."""
    return {**_of_environment(_INHERITED), "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}


def _rhythm() -> dict[str, str]:
    return {**DESK, **_of_environment((*DESK, *_OVERRIDES))}


def _of_environment(names: Iterable[str]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if os.environ.get(name)}
