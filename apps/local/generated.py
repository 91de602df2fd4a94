"""Pages written from the code: ``python -m apps.local.generated`` writes them, ``--check`` fails when one is stale."""

import importlib
import sys
from collections.abc import Iterator
from typing import Any

from sqlalchemy import CheckConstraint, Table, UniqueConstraint
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import Column

from apps.common.errors import ServiceError, error_catalogue
from apps.local import drawing, reason_codes, webhooks_page
from apps.local.api_documents import SERVICES, document
from apps.local.programs import ROOT
from apps.local.states_page import states_page

DOCS = ROOT / "docs"


def main(arguments: list[str]) -> int:
    pages = {
        DOCS / "schema.md": schema_page(),
        DOCS / "errors.md": errors_page(),
        DOCS / "states.md": states_page(),
        DOCS / "architecture.md": drawing.drawn((DOCS / "architecture.md").read_text()),
        DOCS / "webhooks.md": webhooks_page.filled((DOCS / "webhooks.md").read_text()),
        **{DOCS / "api" / f"{service}.json": document(service) for service in SERVICES},
    }
    if "--check" in arguments:
        stale = [path.name for path, text in pages.items() if not path.exists() or path.read_text() != text]
        if stale:
            sys.stderr.write(f"stale: {', '.join(stale)}; write them again with: make docs\n")
        return 1 if stale else 0
    for path, text in pages.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return 0


def schema_page() -> str:
    """Every table of every database, from the models."""
    parts = [
        "# Tables\n\nWritten from the models by `make docs`; do not edit. One database a service; no service reads another's.\n"
        "`wei` and `signed_wei` are database domains: whole numbers below 2^256 in size, nothing else is taken.\n"
    ]
    for service, base in bases().items():
        parts.append(f"## {service}\n")
        meanings = {mapper.local_table.name: mapper.class_.__doc__ or "" for mapper in base.registry.mappers}
        parts += [_table(table, meanings.get(table.name, "")) for table in base.metadata.sorted_tables]
    return "\n".join(parts)


def errors_page() -> str:
    """Every code of a problem document, and every reason code."""
    for service in SERVICES:
        _load_errors(service)
    lines = [
        "# Error and reason codes",
        "",
        "Written from the code by `make docs`; do not edit. Errors are `application/problem+json` (RFC 9457) with a stable",
        "`code`; `errors` names each field. A 409 under a `message_id` of money is sticky: the same id is refused for ever.",
        "",
        "## Errors over HTTP",
        "",
        "| code | status | meaning |",
        "|---|---|---|",
    ]
    lines += [f"| `{cls.code}` | {cls.status} | {_meaning(cls)} |" for cls in error_catalogue()]
    lines += ["", "## Reasons", "", "`reason.code` says why a row is where it is. Side ends and waits carry one."]
    for title, codes in reason_codes.EVERYWHERE.items():
        lines += ["", f"### {title}", "", "| code | meaning | what to do |", "|---|---|---|"]
        lines += [f"| `{code}` | {meaning} | {remedy} |" for code, (meaning, remedy) in sorted(codes.items())]
    return "\n".join(lines) + "\n"


def bases() -> dict[str, Any]:  # declarative bases have no type in common
    """Each service's declarative base. By name: only migrations and the relayer itself import the relayer."""
    modules = {name: "relayer.store.models" if name == "relayer" else f"apps.{name}.models" for name in SERVICES}
    return {name: importlib.import_module(module).Base for name, module in modules.items()}


def _load_errors(service: str) -> None:
    """Import the modules that define a service's errors; subclasses are known once loaded."""
    importlib.import_module("relayer.api.errors" if service == "relayer" else f"apps.{service}.errors")
    importlib.import_module("apps.clients.base")


def _meaning(cls: type[ServiceError]) -> str:
    return " ".join((cls.__doc__ or "").split("\n\n", maxsplit=1)[0].split())


def _table(table: Table, meaning: str) -> str:
    lines = [f"### {table.name}\n"]
    if meaning:
        lines.append(f"{' '.join(meaning.split())}\n")
    lines += ["| column | type | |", "|---|---|---|"]
    lines += [f"| `{column.name}` | {_type(column)} | {', '.join(_notes(column))} |" for column in table.columns]
    rules = sorted(_rules(table))
    return "\n".join(lines) + "\n" + ("\n" + "\n".join(f"- {rule}" for rule in rules) + "\n" if rules else "")


def _type(column: Column[object]) -> str:
    return str(column.type.compile(dialect=postgresql.dialect())).lower()  # type: ignore[no-untyped-call]


def _notes(column: Column[object]) -> Iterator[str]:
    if column.primary_key:
        yield "primary key"
    if column.nullable:
        yield "may be null"
    for key in sorted(column.foreign_keys, key=lambda key: key.target_fullname):
        yield f"→ `{key.target_fullname}`"


def _rules(table: Table) -> Iterator[str]:
    for constraint in table.constraints:
        if isinstance(constraint, UniqueConstraint):
            yield f"unique ({', '.join(column.name for column in constraint.columns)})"
        if isinstance(constraint, CheckConstraint):
            yield f"check `{' '.join(str(constraint.sqltext).split())}`"
    for index in table.indexes:
        columns = ", ".join(str(expression).rsplit(".", maxsplit=1)[-1] for expression in index.expressions)
        where = index.dialect_options["postgresql"].get("where")
        yield f"{'unique ' if index.unique else ''}index ({columns})" + (
            f" where `{where}`" if where is not None else ""
        )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
