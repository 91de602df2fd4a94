"""The `staking` command: the local stack, its demo, its doctor, migrations and the oracle's buttons."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from apps.local.errors import LocalError, NotRunning
from apps.local.home import Home
from apps.local.stack import Stack

# Where nobody looks, as in a log, a table may be as wide as its numbers.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)

WALKTHROUGH = "docs/example-walkthrough.md"


class _Commands(click.Group):
    """Errors of ours end as a plain message and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            if not _is_ours(error):
                raise
            click.echo(f"staking: {error}", err=True)
            ctx.exit(1)


def _is_ours(error: Exception) -> bool:
    if isinstance(error, LocalError):
        return True
    from apps.clients.base import CallFailed, CallRefused  # here, as most commands need no client, and end well
    from apps.common.settings import SettingsError

    return isinstance(error, (SettingsError, CallRefused, CallFailed))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Staking on your desk: databases, broker, chain with Lido contracts, five services, workers.

    Everything lives in STAKING_HOME (default: .staking in the current directory).
    """


@main.command()
@click.option("--detach", is_flag=True, help="Leave the stack running and return.")
@click.option("--separate-custody", is_flag=True, help="In a new home: custody at an address of its own.")
def up(*, detach: bool, separate_custody: bool) -> None:
    """Start everything; without --detach, stop it cleanly on Ctrl-C."""
    stack = _stack()
    started = time.monotonic()
    stack.up(separate_custody=separate_custody)
    console.print(f"started in {time.monotonic() - started:.1f} s")
    _print_urls(stack)
    if detach:
        console.print("stop it with: staking down")
        return
    console.print("press Ctrl-C to stop")
    try:
        while stack.running():
            time.sleep(1)
    except KeyboardInterrupt:
        console.print("stopping")
    finally:
        stack.down()


@main.command()
@click.option("--erase", is_flag=True, help="Remove STAKING_HOME with all its data, too.")
def down(*, erase: bool) -> None:
    """Stop everything; the data stays in STAKING_HOME."""
    stack = _stack()
    console.print("stopped" if stack.down() else "nothing was running")
    if erase:
        Stack(Home(stack.home.path / "demo")).erase()
        stack.erase()
        console.print(f"erased {stack.home.path}")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="What a program needs to use the stack. Holds the API keys.")
def status(*, as_json: bool) -> None:
    """Show what runs and where."""
    stack = _stack()
    if as_json:
        click.echo(json.dumps(stack.status(), indent=2))
        return
    if not stack.running():
        raise NotRunning
    table = Table("program", "state", "pid")
    for name, info in stack.processes().items():
        table.add_row(name, str(info["statename"]).lower(), str(info["pid"]))
    console.print(table)
    _print_urls(stack)


@main.command()
@click.argument("program", required=False)
@click.option("-n", "lines", default=40, show_default=True, help="How many lines.")
@click.option("-f", "follow", is_flag=True, help="Go on as lines come.")
def logs(program: str | None, *, lines: int, follow: bool) -> None:
    """Show the log of one program, or the end of all."""
    found = sorted(Home.from_environment().logs.glob(f"{program or '*'}.log"))
    if not found:
        raise LocalError(f"There is no log of {program or 'anything'}.", "Names are listed by: staking status")
    raise SystemExit(subprocess.call(["tail", "-n", str(lines), *(["-F"] if follow else []), *map(str, found)]))


@main.command()
@click.option(
    "--write-walkthrough",
    type=click.Path(path_type=Path),
    is_flag=False,
    flag_value=WALKTHROUGH,
    help="Write the run, with its tables, as a page; docs/example-walkthrough.md unless a path is given.",
)
@click.option("--kill-workers", is_flag=True, help="SIGKILL every worker in the middle of it.")
def demo(*, write_walkthrough: Path | None, kill_workers: bool) -> None:
    """Drive one whole staking life over the public HTTP API and check every balance against the chain."""
    from apps.local.demo import run_demo

    stack = _stack()
    raise SystemExit(run_demo(stack, console, write_walkthrough, kill_workers=kill_workers))


@main.command()
def doctor() -> None:
    """Check this machine and, if it runs, the stack."""
    from apps.local.doctor import examine

    findings = examine(_stack())
    for finding in findings:
        console.print(
            f"{'ok  ' if finding.ok else 'FAIL'} {finding.what}" + ("" if finding.ok else f"\n     {finding.remedy}")
        )
    raise SystemExit(0 if all(finding.ok for finding in findings) else 1)


@main.command()
@click.argument("service", required=False, type=click.Choice(["ledger", "protocols", "rewards", "pool", "relayer"]))
@click.option("--down", "downward", is_flag=True, help="Go back instead of forward.")
@click.option("--revision", help="Stop there (default: the newest, or with --down before the first).")
def migrate(service: str | None, *, downward: bool, revision: str | None) -> None:
    """Migrate one database or all: the running stack's, else those that each service's .env names."""
    from apps.local.migrate import migrate_databases

    for line in migrate_databases(_stack(), service, downward=downward, revision=revision):
        console.print(line)


@main.command("trim-history")
@click.option("--older-than", required=True, metavar="DAYS", help="For example 90d; 30d at least.")
def trim_history(older_than: str) -> None:
    """Remove the history of requests and batches that ended long ago; nothing of money."""
    from apps.local.migrate import trim_pool_history

    events, deliveries = trim_pool_history(_stack(), older_than)
    console.print(f"{events} events and {deliveries} deliveries removed")


@main.group()
def keys() -> None:
    """Named keys for a service's API_KEYS_FILE."""


@keys.command()
@click.option("--name", required=True, help="Whose it is: of a person where it is for ops.")
@click.option("--scopes", required=True, help="Out of read, write, ops; comma-separated.")
@click.option("--expires", metavar="TIME", help="When it ends, such as 2027-01-01T00:00:00Z (default: never).")
@click.option("--rate", type=click.IntRange(min=1), help="Calls a minute (default: 6000).")
def new(*, name: str, scopes: str, expires: str | None, rate: int | None) -> None:
    """Make a key: it is shown once, and kept nowhere; the file gets a line with its SHA-256."""
    from apps.local.new_key import make_key

    key, line = make_key(name, scopes, expires, rate)
    click.echo(f"The key, shown once; send it as X-Internal-Key:\n\n  {key}\n", err=True)
    click.echo("The line for API_KEYS_FILE (in the place of an older line of the same name):\n", err=True)
    click.echo(line)


@main.group()
def oracle() -> None:
    """The buttons of the local chain's oracle."""


@oracle.command()
@click.option("--delta-wei", required=True, type=int, help="The protocol's reward; negative for a slashing.")
def rebase(delta_wei: int) -> None:
    """Report a reward or a loss of the whole protocol."""
    report = _stack().oracle().rebase(delta_wei)
    click.echo(
        f"block {report.block_number}: total pooled ether {report.pre_total_ether_wei} -> {report.post_total_ether_wei}"
    )


@oracle.command()
@click.option("--up-to", type=int, help="Up to this withdrawal id (default: all).")
def finalize(up_to: int | None) -> None:
    """Finalize withdrawal requests, so that they can be claimed."""
    report = _stack().oracle().finalize(up_to)
    click.echo(f"block {report.block_number}: withdrawals finalized up to id {report.finalized_up_to}")


@oracle.command()
@click.option("--wei", required=True, type=click.IntRange(min=1), help="How much arrives.")
def fund(wei: int) -> None:
    """Send ETH to custody, as a user's deposit arrives; the ledger is told by whoever sees it."""
    stack = _stack()
    custody = str(stack.status()["addresses"]["custody"])
    click.echo(f"{custody} received {wei} wei in {stack.oracle().fund(custody, wei)}")


def _stack() -> Stack:
    return Stack(Home.from_environment(), say=lambda line: console.print(f"· {line}"))


def _print_urls(stack: Stack) -> None:
    found = stack.status()
    table = Table("what", "where", show_header=False)
    for name, url in found["services"].items():
        table.add_row(name, f"{url}/docs")
    table.add_row("Flower", stack.flower_url())
    table.add_row("chain", f"{found['rpc_url']} (chain {found['chain_id']})")
    table.add_row("broker", found["broker_url"])
    table.add_row("keys, databases", "staking status --json")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
