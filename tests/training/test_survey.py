"""training/survey.py: what one pass over the rows remembers."""

from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from tests.training import tiny
from training import survey as module
from training.data import Row
from training.errors import SourceUnavailable
from training.recipe import Recipe
from training.sources import EncoderFolder
from training.survey import Surveyor, open_tokenizer


def seen(encoder: EncoderFolder, rows: list[Row], recipe: Recipe | None = None) -> Surveyor:
    surveyor = Surveyor(recipe or tiny.recipe(), len(rows), open_tokenizer(encoder))
    for number, row in enumerate(rows):
        surveyor.see(number, replace(row, number=number + 1))
    return surveyor


def test_every_row_is_counted(encoder: EncoderFolder) -> None:
    rows = [
        Row("a superb film", 1),
        Row("", 0),
        Row("这部电影很好看", 1),
        Row("so so", None, 0.1),
        Row("mail me@example.com or you@example.com", 0),
        Row("<b>dull</b>", 0),
        Row("<i>stale</i>", 0),
    ]
    found = seen(encoder, rows).finish("tiny")
    assert found.labels == {"negative": 4, "positive": 2}
    assert found.unlabelled == 1
    assert found.flaws == {"empty": 1, "html": 2}
    assert found.first_flaws == {"empty": "row 2", "html": "row 6"}
    assert (found.personal, found.personal_rows) == ({"email": 2}, 1)
    assert found.scripts == {"Latin": 5, "Han": 1}


def test_lengths_are_tokens_with_the_special_ones_and_without_a_cut(encoder: EncoderFolder) -> None:
    rows = [Row("the film", 1), Row(" ".join(["film"] * 30), 0)]
    recipe = tiny.recipe(training__max_tokens=20)
    lengths = seen(encoder, rows, recipe).finish("tiny").lengths
    assert lengths.quantiles["max"] == 32
    assert (lengths.limit_tokens, lengths.over_limit) == (20, 1)
    assert sum(count for *_, count in lengths.bars) == 2


def test_rows_without_text_have_no_lengths(encoder: EncoderFolder) -> None:
    found = seen(encoder, [Row(" ", 1), Row("", 0)]).finish("tiny")
    assert found.lengths.quantiles == {}
    assert found.lengths.bars == []


def test_many_texts_of_exactly_the_greatest_length_were_cut(encoder: EncoderFolder) -> None:
    cut = [Row(f"{number:02} the film was long and its story was".ljust(40, "x")[:40], 1) for number in range(30)]
    short = [Row("x" * length, 0) for length in range(1, 30)]
    assert seen(encoder, cut + short).finish("tiny").flaws["same_length"] == 30
    assert "same_length" not in seen(encoder, short).finish("tiny").flaws
    assert "same_length" not in seen(encoder, cut).finish("tiny").flaws, "all alike is how the data is"


def test_the_sample_has_each_text_once_and_no_unlabelled(encoder: EncoderFolder) -> None:
    rows = [Row("a film", 1), Row("a  film", 1), Row("other", None), Row("dull", 0)]
    sample = seen(encoder, rows).sample()
    assert {(each.number, each.text, each.label) for each in sample} == {(0, "a film", 1), (3, "dull", 0)}


def test_the_sample_is_bounded_and_stable(encoder: EncoderFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE_ROWS", 50)
    rows = list(tiny.table(1000).rows)
    sample = [each.text for each in seen(encoder, rows).sample()]
    assert 20 < len(sample) < 90
    assert [each.text for each in seen(encoder, rows[::-1]).sample()] == sample


def test_an_encoder_without_a_readable_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(SourceUnavailable, match="encoder broken: its tokenizer cannot be read"):
        open_tokenizer(EncoderFolder(tmp_path, "broken", "MIT", "a test"))


def test_a_tokenizer_is_opened_without_cut_or_padding(encoder: EncoderFolder) -> None:
    opened = open_tokenizer(encoder)
    assert isinstance(opened, Tokenizer)
    assert opened.truncation is None
    assert opened.padding is None
