"""The audit of dependencies: a weakness fails, a missing network does not."""

from collections.abc import Sequence

import pytest

from apps.local import dependencies
from apps.local.programs import ROOT

FOUND = "Found 1 known vulnerability in 1 package\nName  Version ID\n"
CLEAN = "No known vulnerabilities found\n"
AWAY = "ERROR:pip_audit._cli:waitress: Dependency not found on PyPI and could not be audited: waitress (3.0.2)\n"


@pytest.mark.parametrize(
    ("answers", "code", "told"),
    [
        ([(1, AWAY)], 0, "not audited"),
        ([(0, CLEAN), (0, CLEAN)], 0, CLEAN),
        ([(0, CLEAN), (1, FOUND)], 1, FOUND),
        ([(1, FOUND), (1, FOUND)], 1, FOUND),
        ([(0, CLEAN), (1, AWAY)], 0, "not audited"),
    ],
)
def test_audit__what_pip_audit_says__only_a_service_that_is_away_is_let_pass(
    capsys: pytest.CaptureFixture[str], answers: list[tuple[int, str]], code: int, told: str
) -> None:
    asked: list[Sequence[str]] = []

    def run(arguments: Sequence[str]) -> tuple[int, str]:
        asked.append(arguments)
        return answers[len(asked) - 1]

    assert dependencies.audit(run) == code
    assert told in capsys.readouterr().err
    assert len(asked) == len(answers)


def test_audit__first_question__is_about_one_package_with_its_hashes() -> None:
    found = dependencies.pin_of((ROOT / "requirements.lock").read_text(), dependencies.FIRST)
    assert found.startswith("waitress==")
    assert found.count("==") == 1
    assert "--hash=sha256:" in found
