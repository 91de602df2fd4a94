"""The house held against its measures: ``python -m apps.local.house --check``.

Untyped dicts, sizes of files, code that stands twice, and the drawing in docs/architecture.md, which is written from the
imports (without ``--check`` it is written anew). Each limit is what the house had when the limit was set: it may go down.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from apps.local import drawing, repeats
from apps.local.programs import ROOT

PRODUCTION = ("apps", "relayer", "tasks")
UNTYPED = "dict[str, " + "Any]"
UNTYPED_LIMIT = 60
REPEATED_LINES_LIMIT = 48
LINES_LIMIT = 300
# A flow is one story, told once and in one place.
LINES_LIMITS = {"apps/pool/flows/": 450}
# Larger than the limit, each for its reason.
LARGER = {
    # Tests: a world, or a table of cases, that would be harder to follow in two files.
    "tests/integration/world/test_world_ways_out.py": 650,
    "tests/integration/world/test_world_nodes_complete.py": 381,
    "tests/integration/world/web/test_world_addresses.py": 305,
    "tests/integration/relayer/test_relayer_replacement.py": 360,
    "tests/integration/pool/test_pool_http.py": 310,
    "tests/support/rude_node.py": 435,
}
# Of a merge that was not finished.
MARK = "<" * 7
PAGE = ROOT / "docs" / "architecture.md"


def main(arguments: list[str]) -> int:
    if "--check" not in arguments:
        PAGE.write_text(drawing.drawn(PAGE.read_text()))
        return 0
    found = [*untyped(), *sizes(), *repeated(), *unmerged(), *drawing.faults(PAGE.read_text())]
    sys.stderr.write("".join(f"{fault}\n" for fault in found))
    return 1 if found else 0


def untyped() -> Iterator[str]:
    """Too many dicts of which nothing says what they hold."""
    counts = {path: path.read_text().count(UNTYPED) for path in sources(*PRODUCTION)}
    total = sum(counts.values())
    if total > UNTYPED_LIMIT:
        most = sorted(counts, key=lambda path: -counts[path])[:5]
        where = ", ".join(f"{name_of(path)} {counts[path]}" for path in most)
        yield f"{total} times {UNTYPED} in production code, {UNTYPED_LIMIT} at most; most in {where}"


def sizes() -> Iterator[str]:
    """Files too long to be read in one go, and exceptions that are none any more."""
    lines = {name_of(path): len(path.read_text().splitlines()) for path in sources(*PRODUCTION, "tests")}
    for name, count in lines.items():
        usual = next((limit for folder, limit in LINES_LIMITS.items() if name.startswith(folder)), LINES_LIMIT)
        if count > LARGER.get(name, usual):
            yield f"{name} has {count} lines, {LARGER.get(name, usual)} at most"
        if name in LARGER and count <= usual:
            yield f"{name} has {count} lines, and needs no exception: strike it off LARGER"
    yield from (f"{name} is not there: strike it off LARGER" for name in LARGER if name not in lines)


def repeated() -> Iterator[str]:
    """More lines in runs that stand twice than there were."""
    runs = repeats.find(sources(*PRODUCTION))
    lines = repeats.lines_in(runs)
    if lines > REPEATED_LINES_LIMIT:
        yield f"{lines} lines of production code stand in two places, {REPEATED_LINES_LIMIT} at most:"
        yield from (
            "  " + " ~ ".join(f"{name_of(path)}:{first}-{last}" for path, first, last in places) for places in runs
        )


def unmerged() -> Iterator[str]:
    """Pages in which a merge left both sides and the marks between them; in code the linter fails on them."""
    for path in [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]:
        lines = path.read_text().splitlines()
        yield from (f"{name_of(path)}:{number} is not merged" for number, line in enumerate(lines, 1) if MARK in line)


def sources(*folders: str) -> list[Path]:
    return [
        path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")) if "node_modules" not in str(path)
    ]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
