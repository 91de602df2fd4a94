"""``staking keys new``: what it prints is what the services take."""

import pytest
from click.testing import CliRunner

from apps.common.keys import KeyRing, Scope
from apps.local.cli import main


def test_keys_new__its_line_in_the_file__the_key_is_accepted(tmp_path_factory: pytest.TempPathFactory) -> None:
    words = ["keys", "new", "--name", "bff", "--scopes", "read,write", "--rate", "60"]
    answer = CliRunner().invoke(main, [*words, "--expires", "2099-01-01T00:00:00Z"])
    assert answer.exit_code == 0, answer.output
    (key,) = [line.strip() for line in answer.stderr.splitlines() if line.startswith("  staking_")]
    assert key not in answer.stdout
    path = tmp_path_factory.mktemp("keys") / "keys.toml"
    path.write_text(answer.stdout)
    caller = KeyRing((), "INTERNAL_API_KEY", path).find(key)
    assert caller is not None
    assert (caller.name, caller.scopes, caller.rate_per_minute) == ("bff", frozenset({Scope.READ, Scope.WRITE}), 60)
    assert not caller.expired()


NAMED = ["--name", "a", "--scopes"]


@pytest.mark.parametrize(
    "words",
    [
        ["--name", "B F F", "--scopes", "read"],
        [*NAMED, "root"],
        [*NAMED, "read", "--expires", "soon"],
    ],
)
def test_keys_new__what_no_service_would_take__refused_with_a_remedy(words: list[str]) -> None:
    answer = CliRunner().invoke(main, ["keys", "new", *words])
    assert answer.exit_code == 1
    assert answer.stdout == ""
    assert "staking: " in answer.stderr
