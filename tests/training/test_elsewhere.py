"""training/elsewhere.py: data of other kinds, measured through a tiny served model."""

from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from inference.model import Model
from tests.training import tiny
from tests.training.findings import assessment
from training.assess import Rows
from training.assess_page import assessment_sections
from training.data import read_table
from training.elsewhere import measure_elsewhere, rows_elsewhere
from training.errors import DataInvalid
from training.prepare import Prepared, prepare
from training.recipe import Recipe, load_recipe

BANDS = {"negative": {"at_most": -1}, "positive": {"at_least": 1}}


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """One source of ratings elsewhere, which holds a row that training has and one that is neutral."""
    tiny.project(tmp_path)
    recipe = load_recipe(tmp_path / "recipe.toml")
    known = prepared(recipe, tmp_path).train.texts[0]
    rows = ["text,label", "a fine  day,2", "a bad day,-2", "an ordinary day,0", f'"{known}",2']
    (tmp_path / "other.csv").write_text("\n".join(rows))
    other = {"source": "file", "path": str(tmp_path / "other.csv"), "thresholds": BANDS}
    return Recipe.model_validate(recipe.model_dump() | {"elsewhere": [other]})


def prepared(recipe: Recipe, cache: Path) -> Prepared:
    with Progress(disable=True) as progress:
        return prepare(read_table(recipe, cache, progress), recipe, progress)


def test_what_was_learned_and_what_is_neutral_is_left_out(recipe: Recipe, tmp_path: Path, progress: Progress) -> None:
    (rows,) = rows_elsewhere(recipe, prepared(recipe, tmp_path), tmp_path, progress)
    assert rows.name == "other.csv"
    assert rows.texts == ("a fine day", "a bad day"), "cleaned as the training texts were"
    assert rows.labels.tolist() == [1, 0]


def test_data_elsewhere_decides_nothing_about_the_model(recipe: Recipe, tmp_path: Path) -> None:
    without = Recipe.model_validate(recipe.model_dump() | {"elsewhere": []})
    assert prepared(recipe, tmp_path).fingerprint == prepared(without, tmp_path).fingerprint


def test_a_bad_row_elsewhere_is_named(recipe: Recipe, tmp_path: Path, progress: Progress) -> None:
    known = prepared(recipe, tmp_path)
    (tmp_path / "other.csv").write_text("text,label\na fine day,much\n")
    with pytest.raises(DataInvalid, match=r"other\.csv, row 1: column 'label' does not hold a number"):
        rows_elsewhere(recipe, known, tmp_path, progress)


def test_each_is_measured_apart_and_shown(model: Model, progress: Progress) -> None:
    good, bad = "the film was good and funny", "an awful and boring mess"
    places = [
        Rows("tweets", (good, bad, bad, bad), np.array([1, 0, 0, 1])),
        Rows("nothing left", (), np.array([], dtype=np.int64)),
        Rows("letters", (good,), np.array([1])),
    ]
    results = measure_elsewhere(model, places, progress)
    assert [(each.name, each.rows, each.accuracy.value) for each in results] == [("tweets", 4, 0.75), ("letters", 1, 1)]
    assert results[0].accuracy.low < 0.75 < results[0].accuracy.high
    page = "".join(assessment_sections(assessment().model_copy(update={"elsewhere": results})))
    assert page.count("tweets") == 1
    assert "Out of domain" not in "".join(assessment_sections(assessment()))
