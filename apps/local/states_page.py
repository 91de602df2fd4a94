"""The page of states and effects: every status, what may follow it, and the name of every effect, from the code."""

import importlib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from apps.common.states import Status
from apps.pool import effects, states

HEAD = """# States and effects

Written from `apps/pool/states.py`, `relayer/store/states.py` and `apps/pool/effects.py` by `make docs`; do not edit.

The pool's database holds the tables of requests and batches in a trigger, and the relayer's holds which of its statuses are
ends. An update that is none of these, or that changes a row that has ended, is refused by name: to the tables' owner too,
and under `session_replication_role = replica`.
"""
# How a parameter is written in a pattern; any other stands as <its name>.
PARAMETERS = {
    "request_id": "<id>",
    "batch_id": "<batch>",
    "withdrawal_id": "<nft>",
    "block_number": "<block>",
    "pool_id": "<pool>",
    "reward_event": "<reward event>",
    "resolution_id": "<resolution>",
    "batch_kind": "<kind>",
    "try_number": "<try>",
    "reservation": "<n>",
    "settlement": "<n>",
    "tx_hash": "<tx hash>",
    "run_id": "<new id>",
}


def states_page() -> str:
    """Every status of a request, a batch, the walk, a resolution and a transaction; and every effect's message_id."""
    relayer = importlib.import_module("relayer.store.states")
    parts = [HEAD, "## Requests\n", _meanings(states.RequestStatus)]
    for kind in states.RequestKind:
        parts.append(_diagram(kind, _of_kind(states.request_transitions(), kind), states.REQUEST_TERMINAL))
    parts += [PARKING, "## Batches\n", _meanings(states.BatchStatus)]
    for batch_kind in states.BatchKind:
        parts.append(_diagram(batch_kind, _of_kind(states.batch_transitions(), batch_kind), states.BATCH_TERMINAL))
    parts += [PARKING, "## The walk\n", _meanings(states.WalkStatus)]
    parts += ["## Resolutions\n", _meanings(states.ResolutionStatus)]
    parts += ["## Transactions at the relayer\n", _meanings(relayer.TransactionStatus)]
    parts.append(_diagram("transaction", relayer.NEXT, frozenset(relayer.FINAL)))
    parts += ["## Effects\n", EFFECTS_HEAD, _effects()]
    return "\n".join(parts)


PARKING = (
    "Each open status may also become `needs_attention`, and goes back from there to where it stopped, or to the end that\n"
    "the walk meets on chain meanwhile.\n"
)
EFFECTS_HEAD = (
    "A name is the whole protection against doing a thing twice: the service that holds the effect takes it once, and answers\n"
    "every repetition with what the first one did. `<id>` is a request's id unless another is named. The index names the\n"
    "settlement of a loss into a position `<accrual>:settle:<n>`; its event is a reward event like a claim's.\n"
)


def _meanings(statuses: Iterable[Status]) -> str:
    lines = ["| status | meaning |", "|---|---|", *(f"| `{status}` | {status.meaning} |" for status in statuses)]
    return "\n".join(lines) + "\n"


def _of_kind(table: Mapping[Any, Iterable[Status]], kind: Status) -> dict[Status, Iterable[Status]]:
    return {status: following for (of, status), following in table.items() if of == kind}


def _diagram(name: str, table: Mapping[Any, Iterable[Status]], ends: frozenset[Any]) -> str:
    """A state diagram; parking is left out, since it is the same for all."""
    lines = ["```mermaid", "stateDiagram-v2", "    direction LR", f'    state "{name}" as {name} {{']
    first = next(iter(table))
    lines.append(f"        [*] --> {first}")
    for status, following in table.items():
        if status != "needs_attention":
            lines += [f"        {status} --> {other}" for other in sorted(following) if other != "needs_attention"]
    reached = {other for following in table.values() for other in following}
    lines += [f"        {end} --> [*]" for end in sorted(ends & reached)]
    return "\n".join([*lines, "    }", "```", ""])


def _effects() -> str:
    lines = ["| where | message_id | effect |", "|---|---|---|"]
    for effect in effects.EFFECTS:
        names = inspect.signature(effect).parameters
        pattern = effect(*(PARAMETERS.get(name, f"<{name}>") for name in names))
        where, what = " ".join((effect.__doc__ or "").split()).split(": ", maxsplit=1)
        lines.append(f"| {where} | `{pattern}` | {what} |")
    return "\n".join(lines) + "\n"
