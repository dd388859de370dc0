"""The one text normalization."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from inference.tasks.text import NO_TOKEN, normalize_text, unknown_token_id


def test_it_composes_and_folds_white_space() -> None:
    assert normalize_text("  cafe\u0301\t\n\u00a0 noir ") == "caf\u00e9 noir"


def test_scripts_without_spaces_survive() -> None:
    for text in ("这部电影很好看", "とても良い映画", "หนังดีมาก"):
        assert normalize_text(text) == text


@given(st.text())
def test_doing_it_twice_changes_nothing(text: str) -> None:
    once = normalize_text(text)
    assert normalize_text(once) == once


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"), 1),
        (models.WordPiece({"a": 0, "<u>": 1}, unk_token="<u>"), 1),
        (models.WordLevel({"a": 0}, unk_token="[UNK]"), NO_TOKEN),
        (models.BPE({"a": 0}, []), NO_TOKEN),
        (models.Unigram([("a", -1.0), ("<unk>", -2.0)], unk_id=1), 1),
        (models.Unigram([("a", -1.0)]), NO_TOKEN),
    ],
)
def test_every_kind_of_vocabulary_tells_its_unknown_token(model: models.Model, expected: int) -> None:
    assert unknown_token_id(Tokenizer(model)) == expected
