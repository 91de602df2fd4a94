"""Arrays as the server reads them: any word is itself, and none is NULL but what is none."""

from apps.common.arrays import array, arrays


def test_array__words_numbers_and_nothing__quoted_where_they_are_words() -> None:
    assert array(["a", "NULL", "", None, -7, 2**255]) == f'{{"a","NULL","",NULL,-7,{2**255}}}'


def test_array__of_what_an_array_is_written_with__is_escaped() -> None:
    assert array(['"', "\\", "{,}", '\\"']) == '{"\\"","\\\\","{,}","\\\\\\""}'


def test_arrays__of_rows__one_for_each_column() -> None:
    assert arrays(("id", "name"), [(1, "a"), (2, None)]) == {"id": "{1,2}", "name": '{"a",NULL}'}
