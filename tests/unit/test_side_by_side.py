"""Processes that run tests side by side: what each of them is given."""

from contextlib import closing
from pathlib import Path

from tests.support.ports import BLOCK, Block
from tests.support.side_by_side import APART, FIRST, house_of, place_in_line

ROOT = Path(__file__).parents[2]


def test_ports__of_two_processes__lie_in_blocks_of_their_own() -> None:
    with closing(Block()) as one, closing(Block()) as other:
        given = [(one.next() // BLOCK, other.next() // BLOCK) for _ in range(3)]
    assert len(set(given)) == 1
    assert given[0][0] != given[0][1]


def test_port__just_given__is_not_the_next_one() -> None:
    with closing(Block()) as block:
        assert len({block.next() for _ in range(20)}) == 20


def test_tests__of_a_module__stay_together_and_of_folders_with_one_stack_too() -> None:
    assert (
        house_of("tests/unit/a.py::test_x[1::2]")
        == house_of("tests/unit/a.py::test_y")
        != house_of("tests/unit/b.py::t")
    )
    stack = [
        house_of(f"tests/{place}::test_x")
        for place in ("browser/a.py", "integration/life/a.py", "integration/life/b.py")
    ]
    assert stack == [stack[0]] * 3
    assert (
        house_of("tests/integration/world/web/a.py::test_x")
        == house_of("tests/integration/world/web/b.py::t")
        != stack[0]
    )


def test_tests__of_a_module_with_a_stack_of_its_own__run_beside_the_shared_one() -> None:
    for module in APART:
        assert (ROOT / module).is_file()
        assert house_of(f"{module}::test_x") == module


def test_tests__the_longest__are_begun_first() -> None:
    assert place_in_line("tests/browser/test_pages.py::test_x") == 0
    assert place_in_line("tests/integration/world/web/a.py::t") < place_in_line("tests/integration/world/a.py::t")
    assert place_in_line("tests/unit/a.py::test_x") == len(FIRST)
    assert [folder for folder in FIRST if not (ROOT / folder).is_dir()] == []
