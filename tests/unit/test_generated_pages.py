"""Pages written from the code are up to date, and every code that the code uses is explained on them."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from apps.local import reason_codes

ROOT = Path(__file__).parents[2]
SOURCES = [path for folder in ("apps/pool", "apps/clients/shapes", "relayer") for path in (ROOT / folder).rglob("*.py")]
# Who takes a code and the text beside it.
SAYING = {"reason", "note", "Refusal", "WalkHalted", "set_reason"}


def test_pages__code_as_it_is__not_stale() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "apps.local.generated", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert (finished.returncode, finished.stderr) == (0, "")


def test_reasons__every_code_in_the_sources__is_explained() -> None:
    said = {code for path in SOURCES for code in codes_said(path.read_text())}
    assert len(said) > 50
    assert said - explained() == set()


def test_reasons__every_code_explained__stands_in_the_sources() -> None:
    words = {word for path in SOURCES for word in re.findall(r'"([a-z_]+)"', path.read_text())}
    # `node_` stands before the reply.
    assert explained() - words == {"node_<reply>"}


@pytest.mark.parametrize(
    ("source", "codes"),
    [
        ('note(context, row, "fee_capped", "Held.")', {"fee_capped"}),
        ('raise WalkHalted("foreign_out", f"{shares} shares left.")', {"foreign_out"}),
        ('set_reason(session, message_id, {"code": "replaced", "detail": day})', {"replaced"}),
        ('end(session, row.message_id, "conflict", Refusal("nonce_taken", detail))', {"nonce_taken"}),
    ],
)
def test_codes_said__each_way_to_say_one__is_seen(source: str, codes: set[str]) -> None:
    assert codes_said(source) == codes


def test_error_codes__every_class_in_the_sources__is_on_the_page() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    sources = [
        ROOT / "apps" / "common" / "errors.py",
        *ROOT.glob("apps/*/errors.py"),
        ROOT / "relayer" / "api" / "errors.py",
    ]
    codes = {code for path in sources for code in re.findall(r'^    code = "([a-z_]+)"', path.read_text(), re.M)}
    assert len(codes) > 30
    assert {code for code in codes if f"`{code}`" not in page} == set()


def explained() -> set[str]:
    return {code for codes in reason_codes.EVERYWHERE.values() for code in codes}


def codes_said(source: str) -> set[str]:
    """Codes that a module gives as reasons: what is passed to the functions that take one, or stands in a dict as `code`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        values: list[ast.expr | None] = []
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in SAYING:
            values = list(node.args)
        if isinstance(node, ast.Dict):
            values = [value for key, value in zip(node.keys, node.values, strict=True) if is_text(key, "code")]
        found |= {
            value.value
            for value in values
            if isinstance(value, ast.Constant) and isinstance(value.value, str) and re.fullmatch("[a-z_]+", value.value)
        }
    return found


def is_text(node: ast.expr | None, text: str) -> bool:
    return isinstance(node, ast.Constant) and node.value == text
