"""The relayer's migrations."""

from collections.abc import Callable

from migrations import runner


def test_migrations__up_down_up__models_agree(make_database: Callable[[str], str]) -> None:
    url = make_database("relayer")
    runner.downgrade("relayer", url)
    runner.upgrade("relayer", url)
    runner.check("relayer", url)
