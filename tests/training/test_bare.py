"""training/bare.py: a recipe made for a table, or one clear sentence."""

from pathlib import Path

import pytest

from artifact.errors import SlipwayError
from tests.training import tiny
from training.bare import DEFAULT_ENCODER, labels_in, recipe_for
from training.recipe import FileData

SECRET = "what the customer wrote"


def test_a_table_gets_a_recipe_that_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("body,stars\nx,10\ny,2\nz,10\n")
    recipe = recipe_for(str(path), "body", "stars", None)
    assert recipe.labels == ("2", "10")
    assert isinstance(recipe.data, FileData)
    assert (recipe.data.path, recipe.data.text_column) == (path, "body")
    assert (recipe.encoder.source, recipe.encoder.name) == ("packaged", DEFAULT_ENCODER)


def test_a_recipe_is_read_as_it_is_but_for_the_encoder(tmp_path: Path) -> None:
    tiny.project(tmp_path)
    path = str(tmp_path / "recipe.toml")
    assert recipe_for(path, "other", "columns", None).encoder.name == str(tmp_path / "encoder")
    assert recipe_for(path, "", "", "someone/encoder").encoder.source == "hub"
    assert recipe_for("sentiment", "", "", str(tmp_path)).encoder.source == "folder"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "a.csv: no rows"),
        ("text,label\n", "a.csv: no rows"),
        (f"text,stars\n{SECRET},1\n", "a.csv, row 1: column 'label' is not there; name another with --label-column"),
        (f"body,label\n{SECRET},1\n", "a.csv, row 1: column 'text' is not there; name another with --text-column"),
        (f"text,label\nx,yes\n{SECRET}\n", "a.csv, row 2: column 'label' is empty"),
        (f"text,label\n{SECRET},\n", "a.csv, row 1: column 'label' is empty"),
        ("text,label\nx,0.5\ny,1\n", "holds numbers with decimals, which are ratings and no labels"),
        ("text,label\n" + "".join(f"x,{n / 7}\n" for n in range(200)), "holds numbers with decimals"),
        ("text,label\n" + "".join(f"x,{SECRET} {n}\n" for n in range(200)), "more than 100 different values"),
        ("text,label\nx,yes\ny,yes\n", "every row has the same label in column 'label'; a classifier needs two"),
        ("text,label\ncafé,yes\n".encode("latin-1"), r"a.csv: not UTF-8 \(byte \d+\)"),
    ],
)
def test_what_cannot_be_labels_is_refused_without_echo(content: str | bytes, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SlipwayError, match=sentence) as refused:
        recipe_for(str(path), "text", "label", None)
    assert SECRET not in refused.value.message


def test_numbers_are_labels_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": "", "label": 10}\n{"a": "", "label": -1}\n{"a": "", "label": 2}\n')
    assert labels_in(path, "label", "a") == ["-1", "2", "10"]


def test_what_is_neither_is_refused_as_a_recipe() -> None:
    with pytest.raises(SlipwayError, match=r"recipe nothing: No such file.*sentiment"):
        recipe_for("nothing", "text", "label", None)
