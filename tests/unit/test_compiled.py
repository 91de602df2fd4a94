"""Engines of one process share what was compiled, and nothing else (tests/support/compiled.py)."""

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, insert, select, text


def test_engines__same_statement_and_other_values__each_finds_its_own_rows() -> None:
    table = Table("numbers", MetaData(), Column("number", Integer))
    engines = [create_engine("sqlite://") for _ in range(3)]
    caches = [engine.get_execution_options()["compiled_cache"] for engine in engines]
    for number, engine in enumerate(engines):
        with engine.begin() as connection:
            table.create(connection)
            connection.execute(insert(table).values(number=number))
            found = connection.execute(select(table).where(table.c.number == number)).all()
            assert found == [(number,)]
    assert caches[0] is caches[1] is caches[2]


@pytest.mark.parametrize("columns", [("first", "second"), ("second", "first"), ("second",)])
def test_engines__same_text_over_other_columns__each_answer_is_named_by_its_own(columns: tuple[str, ...]) -> None:
    with create_engine("sqlite://").begin() as connection:
        connection.execute(text(f"CREATE TABLE things ({', '.join(columns)})"))
        connection.execute(text(f"INSERT INTO things VALUES ({', '.join(repr(name) for name in columns)})"))
        row = connection.execute(text("SELECT * FROM things")).mappings().one()
    assert dict(row) == {name: name for name in columns}
