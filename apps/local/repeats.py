"""Runs of code that stand in two places: the same lines, or the same but for names, strings and numbers."""

import ast
import io
import keyword
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path

# Six lines in a row are no accident.
RUN = 6
Place = tuple[Path, int, int]


def find(paths: Iterable[Path]) -> list[list[Place]]:
    """Each run, as the two places where it stands: file, first and last line. Longest first; none lies within another."""
    bodies = [(path, lines) for path in paths for lines in _bodies(path.read_text())]
    windows: dict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
    for number, (_, lines) in enumerate(bodies):
        for start in range(len(lines) - RUN + 1):
            windows[tuple(shape for _, shape in lines[start : start + RUN])].append((number, start))
    pairs = {pair for places in windows.values() for pair in combinations(places, 2) if pair[0][0] != pair[1][0]}

    def place(body: int, start: int, length: int) -> Place:
        path, lines = bodies[body]
        return path, lines[start][0], lines[start + length - 1][0]

    found = []
    for (one, start), (other, begin) in pairs:
        if ((one, start - 1), (other, begin - 1)) in pairs:
            continue
        length = RUN
        while ((one, start + length - RUN + 1), (other, begin + length - RUN + 1)) in pairs:
            length += 1
        found.append([place(one, start, length), place(other, begin, length)])
    return sorted(found, key=lambda run: (run[0][1] - run[0][2], str(run)))


def lines_in(runs: Iterable[list[Place]]) -> int:
    """How many lines stand in any run; a line that stands in several counts once."""
    return len({(path, line) for run in runs for path, first, last in run for line in range(first, last + 1)})


def _bodies(source: str) -> Iterator[list[tuple[int, str]]]:
    """Each function's lines: number, and tokens with names, strings and numbers blotted out. What stands outside of functions
    says what there is, and may well look alike."""
    words: dict[int, list[str]] = defaultdict(list)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in {tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING}:
            words[token.start[0]].append(_blotted(token))
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    inner = {node for outer in functions for node in ast.walk(outer) if node is not outer}
    for function in functions:
        if function not in inner:
            lines = range(function.body[0].lineno, (function.end_lineno or 0) + 1)
            yield [(line, " ".join(words[line])) for line in lines if line in words and not _is_thin(words[line])]


def _blotted(token: tokenize.TokenInfo) -> str:
    if token.type == tokenize.NAME:
        return token.string if keyword.iskeyword(token.string) else "name"
    return token.string if token.type == tokenize.OP else "value"


def _is_thin(words: list[str]) -> bool:
    """A bracket, a text, or one argument or entry a line: their order is no logic."""
    return len(words) < 3 or words[-1] == "," or words[:2] in (["name", ":"], ["value", ":"])
