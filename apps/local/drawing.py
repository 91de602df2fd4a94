"""The drawing of the house in docs/architecture.md: its rooms and what each uses, from the imports; and one amount's way
through it, written by hand and counted."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from apps.local.programs import ROOT

START, END = "<!-- house: from the imports, by `make docs` -->", "<!-- /house -->"
WALK_START, WALK_END = "<!-- amount -->", "<!-- /amount -->"
# The packages that are rooms of their own; what lies elsewhere in `apps.x` belongs to `apps.x`.
INNER = (
    "apps.pool.flows",
    "apps.pool.walk",
    "apps.pool.reconcile",
    "apps.pool.webhooks",
    "apps.clients.shapes",
    "relayer.api",
    "relayer.chain",
    "relayer.signing",
    "relayer.lifecycle",
    "relayer.store",
)
# The local stack starts and drives all the others; it is no part of production.
OUTSIDE = ("apps.local", "apps.devnet")
MOST_FILES, MOST_CHANGES = 25, 6


def drawn(page: str) -> str:
    """The page with the drawing of the present imports."""
    before, rest = page.split(START, 1)
    return f"{before}{START}\n{drawing()}{END}{rest.split(END, 1)[1]}"


def faults(page: str) -> Iterator[str]:
    """Where the page does not show the house as it is."""
    if START not in page or drawn(page) != page:
        yield "docs/architecture.md: the drawing of the house is stale; write it again with: make docs"
    yield from _walk_faults(page)


def drawing() -> str:
    """A table, from the ground up: each room, its size, and the rooms that its modules import."""
    uses, sizes = rooms()
    lines = ["", "| layer | room | files, lines | uses |", "|---|---|---|---|"]
    for number, layer in enumerate(layers(uses)):
        for room in layer:
            files, count = sizes[room]
            named = ", ".join(f"`{other}`" for other in sorted(uses[room]))
            lines.append(f"| {number} | `{room}` | {files}, {count} | {named} |")
    return "\n".join([*lines, "", ""])


def rooms() -> tuple[dict[str, set[str]], dict[str, tuple[int, int]]]:
    """What each room uses, and how many files and lines it has."""
    uses: dict[str, set[str]] = defaultdict(set)
    sizes: dict[str, tuple[int, int]] = {}
    for folder in ("apps", "relayer", "tasks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            module = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
            room = room_of(module)
            if room is None:
                continue
            source = path.read_text()
            files, lines = sizes.get(room, (0, 0))
            sizes[room] = files + 1, lines + len(source.splitlines())
            uses[room] |= {other for other in map(room_of, imports(source)) if other not in {None, room}}
    return uses, sizes


def room_of(module: str) -> str | None:
    """The room of a module; None for what is no part of production."""
    for inner in INNER:
        if module == inner or module.startswith(f"{inner}."):
            return inner
    parts = module.split(".")
    if parts[0] in {"relayer", "tasks"}:
        return parts[0]
    if parts[0] == "apps" and len(parts) > 1 and ".".join(parts[:2]) not in OUTSIDE:
        return ".".join(parts[:2])
    return None


def imports(source: str) -> Iterator[str]:
    """Every module that a source imports, at its head or within a function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layers(uses: Mapping[str, set[str]]) -> list[list[str]]:
    """Rooms by how far above the ground they stand; rooms of one service that use each other stand on one floor."""
    reached = {room: set(others) for room, others in uses.items()}
    for _ in reached:
        for others in reached.values():
            others |= {far for other in others for far in reached[other]}
    height: dict[str, int] = {}
    for room in sorted(reached, key=lambda room: len(reached[room] | {room})):
        below = [height[other] for other in reached[room] if room not in reached[other]]
        height[room] = 1 + max(below, default=-1)
    found: list[list[str]] = [[] for _ in range(max(height.values()) + 1)]
    for room in sorted(height):
        found[height[room]].append(room)
    return found


def _walk_faults(page: str) -> Iterator[str]:
    """The table of an amount's way names files that are there, and stays within its limits."""
    table = page.split(WALK_START, 1)[-1].split(WALK_END, 1)[0]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines() if re.match(r"\| *\d", row)]
    files = [file for row in rows for file in re.findall(r"`([\w/]+\.(?:py|sql))`", row[1])]
    changes = sum(len(re.findall(r"int → text|text → int|int → bytes|bytes → int", row[-1])) for row in rows)
    yield from (
        f"docs/architecture.md: {file} is on the amount's way, and not there" for file in files if not _is_file(file)
    )
    if not rows or len(set(files)) > MOST_FILES:
        yield f"docs/architecture.md: an amount goes through {len(set(files))} files, {MOST_FILES} at most"
    if not changes or changes > MOST_CHANGES:
        yield f"docs/architecture.md: an amount changes its type {changes} times, {MOST_CHANGES} at most"


def _is_file(name: str) -> bool:
    return Path(ROOT / name).is_file()
