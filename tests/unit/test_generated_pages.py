"""Pages written from the code are up to date, and every code that the code uses is explained on them."""

import re
import subprocess
import sys
from pathlib import Path

from apps.local import reason_codes

ROOT = Path(__file__).parents[2]
SOURCES = [path for folder in ("apps/pool", "tasks", "relayer") for path in (ROOT / folder).rglob("*.py")]
USED = re.compile(r'(?:\breason|Refusal|_Refused|WalkHalted|_note)\(\s*(?:context, row, )?"([a-z_]+)"')


def test_pages__code_as_it_is__not_stale() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "apps.local.generated", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert (finished.returncode, finished.stderr) == (0, "")


def test_reasons__every_code_in_the_sources__is_explained() -> None:
    used = {code for path in SOURCES for code in USED.findall(path.read_text())}
    explained = {code for codes in reason_codes.EVERYWHERE.values() for code in codes}
    assert len(used) > 20
    assert used - explained == set()


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
