"""training/labelled.py: rows of a file with all their columns, and a test split that is still the one held out."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from artifact.manifest import Manifest
from inference.tasks.transforms import Cleaner
from tests.training import tiny
from tests.training.findings import findings
from training.data import read_table
from training.errors import DataInvalid, EvaluationInvalid, RecipeInvalid, SourceUnavailable
from training.labelled import Reading, file_rows, prepared_again, reading_for, recipe_of, rows_of
from training.prepare import Split, prepare
from training.recipe import Band, Recipe, load_recipe

READING = Reading("text", "label", ("negative", "positive"))


def written(folder: Path, content: str | bytes, name: str = "rows.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_file_keeps_its_other_columns(tmp_path: Path) -> None:
    rows = file_rows(
        written(tmp_path, "text,label,genre,year\nfine,positive,drama,1999\nawful,negative,,2001\n"), READING
    )
    assert (rows.name, rows.texts, rows.labels.tolist()) == ("rows.csv", ("fine", "awful"), [1, 0])
    assert rows.columns == {"genre": ["drama", ""], "year": ["1999", "2001"]}


def test_json_lines_may_lack_a_column(tmp_path: Path) -> None:
    lines = [{"text": "a", "label": "positive", "tags": ["x"]}, {"text": "b", "label": "negative", "n": 3}]
    path = written(tmp_path, "\n".join(map(json.dumps, lines)), "rows.jsonl")
    assert file_rows(path, READING).columns == {"tags": ["['x']", None], "n": [None, 3]}


def test_labels_may_have_other_names_or_be_ratings(tmp_path: Path) -> None:
    reading = Reading(
        "text",
        "stars",
        ("negative", "positive"),
        names={"true": "positive"},
        bands={"negative": Band(at_most=2), "positive": Band(at_least=4)},
    )
    lines = [{"text": "a", "stars": value} for value in (1, "5", 3, "negative", True)]
    path = written(tmp_path, "\n".join(map(json.dumps, lines)), "rows.jsonl")
    rows = file_rows(path, reading)
    assert rows.labels.tolist() == [0, 1, 0, 1]
    assert rows.name == "rows.jsonl (1 rows with a neutral rating left out)"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("label\npositive\n", "rows.csv, row 1: no column 'text'; name it with --text-column"),
        ("text\nfine\n", "rows.csv, row 1: no column 'label'; name it with --label-column"),
        ("text,label\nfine,positive\n ,positive\n", "rows.csv, row 2: column 'text' is empty"),
        ("text,label\nfine,\n", "rows.csv, row 1: column 'label' is empty"),
        ("text,label\nfine,secret\n", "rows.csv, row 1: the label in column 'label' is not one of negative, positive"),
        ("text,label\nfine,0.5\n", "rows.csv, row 1: the label in column 'label' is not one of negative, positive"),
        ("text,label\n", "rows.csv: no rows"),
        ("", "rows.csv: no rows"),
        (b"text,label\nf\xffne,positive\n", "rows.csv: not UTF-8 (byte 12); save it as UTF-8"),
    ],
)
def test_a_file_that_cannot_be_used_says_where_and_never_what(tmp_path: Path, content: str | bytes, said: str) -> None:
    with pytest.raises(DataInvalid) as caught:
        file_rows(written(tmp_path, content), READING)
    assert caught.value.message == said


def test_true_and_false_are_no_ratings() -> None:
    reading = Reading("text", "label", ("n", "p"), bands={"n": Band(at_most=-1), "p": Band(at_least=1)})
    assert reading.label(1) == 1
    with pytest.raises(ValueError, match="not a label"):
        reading.label(True)
    with pytest.raises(ValueError, match="not a label"):
        reading.label("nan")


def test_only_neutral_ratings_are_no_rows(tmp_path: Path) -> None:
    reading = Reading("text", "label", ("n", "p"), bands={"n": Band(at_most=-1), "p": Band(at_least=1)})
    with pytest.raises(DataInvalid, match="every row has a neutral rating"):
        file_rows(written(tmp_path, "text,label\nfine,0\n"), reading)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match=r"--data .*absent\.csv: No such file"):
        file_rows(tmp_path / "absent.csv", READING)
    with pytest.raises(DataInvalid, match="must end in one of"):
        file_rows(tmp_path / "rows.xls", READING)


def test_a_text_of_which_the_model_sees_nothing_is_refused(tmp_path: Path) -> None:
    reading = replace(READING, clean=Cleaner(["html"]))
    path = written(tmp_path, "text,label\n<b>fine</b>,positive\n<br/>,negative\n")
    with pytest.raises(DataInvalid, match=r"row 2: column 'text' holds nothing but what this model's preprocessing"):
        file_rows(path, reading)


def test_an_id_stands_once_where_the_file_has_the_column(tmp_path: Path) -> None:
    reading = replace(READING, id_column="id")
    twice = written(tmp_path, "id,text,label\n7,fine,positive\n8,bad,negative\n7,good,positive\n")
    with pytest.raises(DataInvalid, match=r"row 3: column 'id' repeats the id of row 1"):
        file_rows(twice, reading)
    assert len(file_rows(written(tmp_path, "text,label\nfine,positive\nfine,positive\n"), reading).texts) == 2


def test_of_several_sources_the_first_names_the_columns() -> None:
    one = {"source": "file", "path": "a.csv", "text_column": "review"}
    recipe = tiny.recipe(data={"source": "joined", "sources": [one, {"source": "file", "path": "b.csv"}]})
    assert reading_for(findings().manifest, recipe).text_column == "review"
    with pytest.raises(EvaluationInvalid, match=r"local file, a\.csv, which is not here"):
        prepared_again(findings().manifest, recipe, Path(), Progress())


def test_a_joined_test_split_names_its_sources() -> None:
    split = Split(("a", "b"), np.array([0, 1]), None, ("web", "book"))
    prepared = replace(findings().prepared, test=split)
    assert rows_of(prepared).columns == {"source": ("web", "book")}


def test_columns_are_called_as_asked_then_as_in_the_recipe() -> None:
    manifest = findings().manifest
    recipe = tiny.recipe(data__text_column="review", data__label_names={"0": "negative"})
    assert reading_for(manifest, None) == Reading("text", "label", manifest.labels)
    found = reading_for(manifest, recipe, label_column="stars")
    assert (found.text_column, found.label_column, found.names) == ("review", "stars", {"0": "negative"})


# --- the test split ----------------------------------------------------------------------------------------------


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    tiny.project(tmp_path)
    return load_recipe(tmp_path / "recipe.toml")


def trained_on(recipe: Recipe, cache: Path, progress: Progress, **changes: object) -> Manifest:
    """A manifest of a model that was trained by `recipe`."""
    prepared = prepare(read_table(recipe, cache, progress), recipe, progress)
    manifest = findings().manifest
    provenance = manifest.provenance.model_copy(update={"data_fingerprint": prepared.fingerprint} | changes)
    return manifest.model_copy(update={"provenance": provenance})


def test_the_test_split_is_the_one_that_was_held_out(recipe: Recipe, cache: Path, progress: Progress) -> None:
    manifest = trained_on(recipe, cache, progress)
    again = prepared_again(manifest, recipe, cache, progress)
    prepared = prepare(read_table(recipe, cache, progress), recipe, progress)
    assert rows_of(again).texts == prepared.test.texts
    assert rows_of(again).labels.tolist() == prepared.test.labels.tolist()


def test_changed_data_is_not_held_out_any_more(recipe: Recipe, cache: Path, progress: Progress) -> None:
    manifest = trained_on(recipe, cache, progress, data_fingerprint="sha256:another")
    with pytest.raises(EvaluationInvalid, match="may hold rows the model has learned; give --data"):
        prepared_again(manifest, recipe, cache, progress)


def test_a_local_file_that_is_elsewhere_is_asked_for(cache: Path, progress: Progress) -> None:
    recipe = tiny.recipe(data={"source": "file", "path": "nowhere.csv"})
    with pytest.raises(EvaluationInvalid, match=r"local file, nowhere\.csv, which is not here; give --recipe"):
        prepared_again(findings().manifest, recipe, cache, progress)


def test_a_manifest_without_a_usable_recipe_says_what_to_give() -> None:
    with pytest.raises(RecipeInvalid, match=r"recipe of tiny:1: .*; give --recipe, or --data"):
        recipe_of(findings().manifest)
    assert recipe_of(findings().manifest, "sentiment").name == "sentiment"
