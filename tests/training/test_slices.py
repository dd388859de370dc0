"""training/slices.py: which rows a slice holds, how it is measured, which one is the worst."""

import numpy as np
import pytest

from training.errors import EvaluationInvalid
from training.intervals import proportion
from training.slices import MIN_ROWS, Columns, Slice, column_slices, expression_slice, length_slices, measure, worst


def test_bands_of_length_share_out_the_rows() -> None:
    found = length_slices(list(range(100)))
    assert [each.name for each in found] == ["0 to 24 tokens", "25 to 49 tokens", "50 to 74 tokens", "75 to 99 tokens"]
    assert sum(each.rows.astype(int) for each in found).tolist() == [1] * 100  # type: ignore[union-attr]


def test_equal_lengths_stay_together() -> None:
    found = length_slices([5] * 90 + [8] * 10)
    assert [(each.name, int(each.rows.sum())) for each in found] == [("5 tokens", 90), ("8 tokens", 10)]


def test_every_value_of_a_column_is_a_slice() -> None:
    found = column_slices("genre", ["b", "a", None, "", "a", True])
    assert [(each.name, each.rows.tolist()) for each in found] == [
        ("(empty)", [False, False, True, True, False, False]),
        ("True", [False, False, False, False, False, True]),
        ("a", [False, True, False, False, True, False]),
        ("b", [True, False, False, False, False, False]),
    ]


def test_many_numbers_become_bands_and_many_words_the_frequent_ones() -> None:
    years = column_slices("year", [str(1900 + row) for row in range(100)])
    assert [each.name for each in years] == ["1900 to 1924", "1925 to 1949", "1950 to 1974", "1975 to 1999"]
    words = column_slices("who", ["often"] * 5 + [f"once {row}" for row in range(40)])
    assert len(words) == 20
    assert {each.name: int(each.rows.sum()) for each in words}["(other values)"] == 45 - 5 - 18


def test_a_condition_is_a_slice_and_may_have_a_name() -> None:
    columns: Columns = {"tokens": [3, 50, 60], "text": ["a: b", "c", "d"]}
    assert expression_slice("tokens > 40", columns, 3).rows.tolist() == [False, True, True]
    named = expression_slice("long texts: tokens > 40", columns, 3)
    assert (named.name, named.rows.tolist()) == ("long texts", [False, True, True])
    assert expression_slice("text == 'a: b'", columns, 3).rows.tolist() == [True, False, False]


def test_a_condition_that_holds_for_nothing_is_refused() -> None:
    with pytest.raises(EvaluationInvalid, match="holds for none of the 1 rows"):
        expression_slice("tokens > 40", {"tokens": [3]}, 1)


def test_a_slice_is_measured_against_all_other_rows() -> None:
    right = np.array([True] * 60 + [False] * 40)
    first, empty, everything = (
        Slice("x", "first", np.arange(100) < 50),
        Slice("x", "empty", np.zeros(100, dtype=bool)),
        Slice("x", "all", np.ones(100, dtype=bool)),
    )
    found = measure([first, empty, everything], right)
    assert [each.name for each in found] == ["first", "all"]
    assert (found[0].rows, found[0].accuracy) == (50, proportion(50, 50))
    assert found[0].difference is not None
    assert found[0].difference.value == pytest.approx(1.0 - 0.2)
    assert found[1].difference is None


def test_the_worst_slice_has_enough_rows_and_others_beside_it() -> None:
    right = np.array([False] * (MIN_ROWS - 1) + [True] * 80 + [False] * 20)
    rows = np.arange(len(right))
    few, many, rest = (
        Slice("x", "few", rows < MIN_ROWS - 1),
        Slice("x", "many", rows >= MIN_ROWS + 40),
        Slice("x", "all", rows >= 0),
    )
    found = worst(measure([few, many, rest], right))
    assert found is not None
    assert found.name == "many"
    assert worst(measure([few], right)) is None
