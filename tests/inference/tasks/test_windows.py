"""Where the windows of a long text lie."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.tasks.base import Prepared
from inference.tasks.windows import rows_of, spans, window_count, windows


@given(st.integers(1, 10_000), st.integers(1, 600))
def test_windows_cover_every_token_once_in_as_few_as_hold_them_and_as_equal_as_can_be(tokens: int, room: int) -> None:
    found = windows(tokens, room)
    assert [place for start, end in found for place in range(start, end)] == list(range(tokens))
    lengths = [end - start for start, end in found]
    assert max(lengths) <= room
    assert max(lengths) - min(lengths) <= 1
    assert lengths == sorted(lengths, reverse=True)
    assert (len(found) - 1) * room < tokens


@pytest.mark.parametrize(
    ("tokens", "room", "expected"),
    [
        (0, 5, [(0, 0)]),
        (5, 5, [(0, 5)]),
        (6, 5, [(0, 3), (3, 6)]),
        (11, 5, [(0, 4), (4, 8), (8, 11)]),
    ],
)
def test_windows_by_example(tokens: int, room: int, expected: list[tuple[int, int]]) -> None:
    assert windows(tokens, room) == expected
    assert window_count(tokens, room) == len(expected)


@given(st.integers(1, 2_000), st.integers(1, 100), st.integers(0, 4))
def test_special_tokens_around_each_window_move_no_border(tokens: int, room: int, special: int) -> None:
    own = windows(tokens, room)
    with_special = spans(tokens + special * len(own), len(own))
    assert [end - start - special for start, end in with_special] == [end - start for start, end in own]


def test_rows_of_an_input_are_its_windows_and_cost_what_they_hold() -> None:
    whole = Prepared([2, 5, 3], 3)
    assert rows_of(whole) == [whole]
    cut = Prepared([2, 5, 6, 3, 2, 7, 3], 5, windows=2)
    assert rows_of(cut) == [Prepared([2, 5, 6, 3], 4), Prepared([2, 7, 3], 3)]
