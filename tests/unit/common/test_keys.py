"""Named keys: what the file may say, what a key may do, and how a change of the file is taken without a restart."""

from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from apps.common import keys
from apps.common.keys import Caller, KeyRing, KeysFileRefused, Scope, key_line, new_key, parse_keys

BFF, OLGA = "staking_bff", "staking_olga"
LINES = key_line("bff", BFF, [Scope.READ, Scope.WRITE]) + "\n" + key_line("olga", OLGA, [Scope.READ, Scope.OPS]) + "\n"


class Clock:
    """The ring's clocks, set by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return 2**62  # long after any file was written


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(keys, "time", found)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "keys.toml"
    found.write_text(LINES)
    return found


def rewrite(path: Path, text: str) -> None:
    """As an editor does: another file takes its place."""
    other = path.with_suffix(".new")
    other.write_text(text)
    other.replace(path)


def test_find__shared_named_and_unknown_keys__the_right_caller_or_none(path: Path) -> None:
    ring = KeyRing(("old", "new"), "INTERNAL_API_KEY", path)
    shared = Caller("INTERNAL_API_KEY")
    assert [ring.find("old"), ring.find("new")] == [shared, shared]
    assert shared.scopes == set(Scope)
    assert not shared.named
    found = ring.find(BFF)
    assert found is not None
    assert (found.name, found.scopes, found.named) == ("bff", frozenset({Scope.READ, Scope.WRITE}), True)
    for wrong in (None, "", "bff", "old,new", BFF + "x", "ключ"):
        assert ring.find(wrong) is None


def test_find__file_changed__taken_within_a_second_and_struck_off_keys_refused(path: Path, clock: Clock) -> None:
    ring = KeyRing((), "INTERNAL_API_KEY", path)
    assert ring.find(OLGA) is not None
    rewrite(path, key_line("paul", "staking_paul", [Scope.OPS]) + "\n")
    assert ring.find("staking_paul") is None  # looked at once a second at most
    clock.now += keys.LOOK_SEC
    assert ring.find("staking_paul") is not None
    assert ring.find(OLGA) is None


def test_find__rotation__both_keys_of_a_list_are_the_same_caller(tmp_path: Path) -> None:
    digests = [key_line("bff", key, [Scope.READ]).split('"')[1] for key in ("one", "two")]
    (tmp_path / "keys.toml").write_text(f'bff = {{sha256 = ["{digests[0]}", "{digests[1]}"], scopes = ["read"]}}')
    ring = KeyRing((), "INTERNAL_API_KEY", tmp_path / "keys.toml")
    one, two = ring.find("one"), ring.find("two")
    assert one is not None
    assert one == two


@pytest.mark.parametrize("breakage", ["not TOML at all", "gone", "cut", "wrong scope"])
def test_find__file_broken__last_good_keys_stay_and_it_is_told(path: Path, clock: Clock, breakage: str) -> None:
    ring = KeyRing((), "INTERNAL_API_KEY", path)
    with capture_logs() as logged:
        for text in {
            "not TOML at all": ["= [nonsense"],
            "gone": [],
            "cut": [LINES[: len(LINES) - 20]],
            "wrong scope": [LINES.replace('"ops"', '"root"')],
        }[breakage]:
            rewrite(path, text)
        if breakage == "gone":
            path.unlink()
        for _ in range(3):
            clock.now += keys.LOOK_SEC
            assert ring.find(BFF) is not None
    assert [entry["event"] for entry in logged] == ["api_keys_file_refused"]  # once, not once a second
    assert ring.refusal() is not None
    rewrite(path, LINES)
    clock.now += keys.LOOK_SEC
    assert ring.refusal() is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('Bff = {sha256 = "x", scopes = ["read"]}', "A name must be"),
        ('bff = "secret-key"', "bff: must be a table"),
        ('bff = {key = "secret-key", scopes = ["read"]}', "bff: unknown field"),
        ('bff = {sha256 = "secret-key", scopes = ["read"]}', "bff.sha256"),
        (f'bff = {{sha256 = "{"a" * 64}", scopes = []}}', "bff.scopes"),
        (f'bff = {{sha256 = "{"a" * 64}", scopes = ["secret-key"]}}', "bff.scopes"),
        (f'bff = {{sha256 = "{"a" * 64}", scopes = ["read"], expires = 2027-01-01}}', "bff.expires"),
        (f'bff = {{sha256 = "{"a" * 64}", scopes = ["read"], rate_per_minute = 0}}', "bff.rate_per_minute"),
        (f'bff = {{sha256 = ["{"a" * 64}", "{"a" * 64}"], scopes = ["read"]}}', "the same key stands twice"),
        ('bff = {sha256 = "secret-key"', "not TOML"),
    ],
)
def test_parse__what_a_file_may_not_say__named_and_never_repeated(text: str, told: str) -> None:
    with pytest.raises(KeysFileRefused) as caught:
        parse_keys(text)
    assert told in str(caught.value)
    assert "secret-key" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_start__without_a_readable_file__refused(tmp_path: Path) -> None:
    with pytest.raises(KeysFileRefused, match="cannot be read"):
        KeyRing((), "INTERNAL_API_KEY", tmp_path / "none.toml")


def test_new_key__its_line__holds_its_digest_and_not_the_key() -> None:
    key = new_key()
    line = key_line("bff", key, [Scope.READ], expires="2027-01-01T00:00:00Z", rate_per_minute="60")
    assert key not in line
    (caller,) = parse_keys(line).values()
    assert (caller.name, caller.rate_per_minute, caller.expired()) == ("bff", 60, caller.expires is None)
    assert len({new_key() for _ in range(100)}) == 100


def test_expiry__in_the_past__expired() -> None:
    (caller,) = parse_keys(key_line("bff", "x", [Scope.READ], expires="2001-01-01T00:00:00Z")).values()
    assert caller.expired()


def test_ring__written_down__shows_no_key(path: Path) -> None:
    ring = KeyRing(("shared-secret",), "INTERNAL_API_KEY", path)
    assert "shared-secret" not in repr(ring)
    with capture_logs() as logged:
        structlog.get_logger().info("ring", ring=ring, caller=ring.find(BFF))
    assert BFF not in str(logged)
