"""`staking demo`: one life on a stack of its own (or on the one that runs), shown, checked and, if asked, written
down."""

import os
import time
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from apps.local.bff import Bff
from apps.local.checks import check_books
from apps.local.errors import LocalError
from apps.local.home import Home
from apps.local.life import Life
from apps.local.stack import Stack
from apps.local.tables import Snapshot, cell, last_movement, snapshots
from apps.local.walkthrough import Walkthrough

# Nobody wants to watch a demo wait: blocks every half second, and a stack that looks oftener than the desk's. Not more often
# than this: each look is a task, and on a busy machine more tasks than the workers can do would delay the flows.
RHYTHM = {
    "STAKING_BLOCK_TIME": "0.5",
    "STAKE_BATCH_MAX_WAIT_SEC": "1",
    "UNSTAKE_BATCH_MAX_WAIT_SEC": "1",
    "BATCH_INTERVAL_SEC": "0.5",
    "RELAYER_PUMP_INTERVAL_SEC": "0.5",
    "REWARD_DISTRIBUTION_INTERVAL_SEC": "1",
    "CLAIM_POLL_INTERVAL_SEC": "0.5",
    "RECONCILIATION_INTERVAL_SEC": "2",
}


def run_demo(stack: Stack, console: Console, page: Path | None, *, kill_workers: bool) -> int:
    """Run the life; 0 when every check held. Unless a stack runs, the demo starts a fresh one and stops it at the
    end; its data and logs stay until the next."""
    started = time.monotonic()
    if stack.running():
        return _live(stack, console, page, kill_workers=kill_workers)
    own = Stack(Home(stack.home.path / "demo"), stack.say)
    own.erase()
    for name, value in RHYTHM.items():
        os.environ.setdefault(name, value)
    console.rule("starting the stack")
    own.up()
    console.print(f"started in {time.monotonic() - started:.1f} s")
    try:
        return _live(own, console, page, kill_workers=kill_workers)
    finally:
        console.rule("stopping the stack")
        own.down()
        console.print(f"stopped; {time.monotonic() - started:.1f} s in all")


def _live(stack: Stack, console: Console, page: Path | None, *, kill_workers: bool) -> int:
    bff = Bff(stack)
    urls = stack.status()["database_urls"]
    life = Life(bff, _tag(bff), Killer(stack, console) if kill_workers else lambda: None)
    walkthrough = Walkthrough()
    for number, step in enumerate(life.steps(), 1):
        console.rule(f"{number}. {step.title}")
        console.print(step.story.replace("`", ""), style="dim")
        since, began = last_movement(urls) if page else 0, time.monotonic()
        lines = step.run()
        for line in lines:
            console.print(f"  {line}")
        console.print(f"  ({time.monotonic() - began:.1f} s)", style="dim")
        if page is not None:
            walkthrough.add(step, lines, snapshots(urls, life.users(), since))
        _refuse_drift(lines)
    for table in snapshots(urls, life.users(), 0):
        console.print(_rich(table))
    checks = check_books(bff, life.users())
    head = [Column(name, overflow="fold") for name in ("check against the chain", "expected", "found", "")]
    found = Table(*head, title="Every balance against the chain")
    for check in checks:
        found.add_row(check.what, str(check.expected), str(check.found), "ok" if check.ok else "WRONG")
    console.print(found)
    if page is not None:
        walkthrough.finish(checks, page)
        console.print(f"written: {page}")
    wrong = [check.what for check in checks if not check.ok]
    if wrong:
        raise LocalError(f"The books differ from the chain: {'; '.join(wrong)}.", "This is a defect; keep the logs.")
    console.print("every balance equals the chain, to the wei")
    return 0


def _tag(bff: Bff) -> str:
    """An ending of names that nobody on this stack has yet: none on a fresh one."""
    number = 1
    while bff.clients.ledger.movement(f"deposit:alice{'' if number == 1 else f'-{number}'}:1") is not None:
        number += 1
    return "" if number == 1 else f"-{number}"


class Killer:
    """SIGKILLs every worker; the supervisor starts them again, and the sweep finds what they left."""

    def __init__(self, stack: Stack, console: Console) -> None:
        self._stack = stack
        self._console = console

    def __call__(self) -> None:
        self._stack.kill_workers()
        self._console.print("  every worker was killed with SIGKILL")


def _refuse_drift(lines: list[str]) -> None:
    for line in lines:
        if line.startswith("verdict ") and not line.startswith("verdict ok"):
            raise LocalError(f"Reconciliation says: {line}.", "This is a defect; keep the logs.")


def _rich(snapshot: Snapshot) -> Table:
    view = snapshot.view
    columns = [Column(name, overflow="fold") for name in view.columns]
    table = Table(*columns, title=f"{view.database}.{view.table}", title_justify="left")
    for row in snapshot.rows:
        table.add_row(*(cell(value) for value in row))
    return table
