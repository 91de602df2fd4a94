"""Which items of the history the walk books together."""

from hypothesis import given
from hypothesis import strategies as st

from apps.pool.models import Resolution
from apps.pool.walk.booking import Item
from apps.pool.walk.run import groups


def item(kind: str, block: int, index: int, tx: str) -> Item:
    return Item(
        kind=kind,
        block_number=block,
        block_hash="0x",
        tx_hash=tx,
        log_index=index,
        shares=None,
        amount_wei=None,
        rebase=None,
    )


KINDS = ("submit", "request", "claim", "rebase", "foreign_in", "foreign_out")
LINES = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 3), st.sampled_from(("a", "b"))), max_size=30)


def history(lines: list[tuple[str, int, str]]) -> list[Item]:
    """Items in chain order, each at a place of its own."""
    rows = sorted(lines, key=lambda line: line[1])
    return [item(kind, block, number, f"{block}-{tx}") for number, (kind, block, tx) in enumerate(rows)]


@given(LINES)
def test_groups__any_history__each_item_once_and_in_order(lines: list[tuple[str, int, str]]) -> None:
    items = history(lines)
    assert [one for group in groups(items, {}) for one in group] == items


@given(LINES)
def test_groups__any_history__together_only_what_is_of_one_kind_and_place(lines: list[tuple[str, int, str]]) -> None:
    for group in groups(history(lines), {}):
        (kind,) = {one.kind for one in group}
        if kind in {"submit", "rebase", "foreign_out"}:
            assert len(group) == 1
        if kind == "request":
            assert len({one.tx_hash for one in group}) == 1
        if kind == "claim":
            assert len({one.block_number for one in group}) == 1


@given(LINES)
def test_groups__decided_by_ops__alone(lines: list[tuple[str, int, str]]) -> None:
    items = history(lines)
    decided = {(one.tx_hash, one.kind): Resolution() for one in items if one.tx_hash.endswith("a")}
    for group in groups(items, decided):
        if any((one.tx_hash, one.kind) in decided for one in group):
            assert len(group) == 1


def test_groups__claims_of_two_transactions_of_a_block__together_until_the_next_block() -> None:
    items = [item("claim", 5, 1, "a"), item("claim", 5, 2, "b"), item("claim", 6, 1, "c")]
    assert list(groups(items, {})) == [items[:2], items[2:]]
