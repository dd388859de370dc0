"""The one text normalization."""

from hypothesis import given
from hypothesis import strategies as st

from inference.tasks.text import normalize_text


def test_it_composes_and_folds_white_space() -> None:
    assert normalize_text("  cafe\u0301\t\n\u00a0 noir ") == "caf\u00e9 noir"


def test_scripts_without_spaces_survive() -> None:
    for text in ("这部电影很好看", "とても良い映画", "หนังดีมาก"):
        assert normalize_text(text) == text


@given(st.text())
def test_doing_it_twice_changes_nothing(text: str) -> None:
    once = normalize_text(text)
    assert normalize_text(once) == once
