"""`docs/example-walkthrough.md`, written from a real run."""

from pathlib import Path

from apps.local.checks import Check
from apps.local.life import Step
from apps.local.tables import Snapshot, cell

_HEAD = """\
# A whole staking life, with every table

Written by `staking demo --write-walkthrough` from a real run on embedded PostgreSQL, Valkey and anvil with the devnet's
Lido contracts. Nothing here is typed by hand: run it again and the names, ids and hashes change, the sums do not.
All amounts are wei. Of `movements`, each step shows the rows it added; of the other tables, how they stand after it.
"""


class Walkthrough:
    """Collects the steps and writes the page."""

    def __init__(self) -> None:
        self._parts = [_HEAD]
        self._number = 0

    def add(self, step: Step, lines: list[str], tables: list[Snapshot]) -> None:
        self._number += 1
        self._parts.append(f"## {self._number}. {step.title}\n\n{step.story}\n")
        self._parts.append("\n".join(f"- {line}" for line in lines) + "\n")
        self._parts += [_markdown(table) for table in tables]

    def finish(self, checks: list[Check], path: Path) -> None:
        rows = "\n".join(f"| {check.what} | {check.expected} | {check.found} |" for check in checks)
        self._parts.append(
            "## Every balance against the chain\n\n| what | expected | found |\n|---|---|---|\n" + rows + "\n"
        )
        path.write_text("\n".join(self._parts))


def _markdown(snapshot: Snapshot) -> str:
    view = snapshot.view
    head = "| " + " | ".join(view.columns) + " |\n|" + "---|" * len(view.columns)
    body = "\n".join(
        "| " + " | ".join(cell(value).replace("|", "\\|") for value in row) + " |" for row in snapshot.rows
    )
    return f"**{view.database}.{view.table}**\n\n{head}\n{body}\n"
