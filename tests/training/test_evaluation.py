"""training/evaluation.py: a published model on a file and on its own test split, two models, and a recipe in folds."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from artifact.errors import ArtifactNotFound
from artifact.repository import Artifact, Repository
from tests.tiny_artifact import publish_tiny
from tests.training import tiny
from training.data import read_table
from training.errors import DataInvalid, EvaluationInvalid, RecipeInvalid, TrainingError
from training.evaluation import Asked, evaluate_model, evaluate_recipe, write_page
from training.evaluation_page import render_model
from training.evaluation_tables import model_tables
from training.prepare import prepare
from training.provenance import public_recipe
from training.recipe import load_recipe

QUIET = Console(quiet=True)


def published(root: Path, **changes: object) -> Artifact:
    """A tiny artifact; `changes` to its provenance."""
    path, manifest = publish_tiny(root)
    document = json.loads((path / "manifest.json").read_text())
    document["provenance"].update(changes)
    (path / "manifest.json").write_text(json.dumps(document))
    return Repository(root).open("sentiment", str(manifest.version))


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return published(tmp_path / "models")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    lines = [["text", "label", "genre"]]
    lines += [
        ["a good film" if row % 2 else "an awful mess", ("negative", "positive")[row % 2], "x"] for row in range(60)
    ]
    path = tmp_path / "rows.csv"
    path.write_text(tiny.lines(*lines))
    return path


def test_a_file_is_evaluated_and_told_in_one_document(artifact: Artifact, file: Path) -> None:
    found = evaluate_model(artifact, None, Asked(data=file, groups=("genre",), perturbed_rows=10), QUIET)
    document = json.loads(json.dumps(found.document()))
    assert (document["model"], document["digest"]) == ("sentiment:1", artifact.digest)
    assert document["assessment"]["metrics"]["accuracy"]["value"] == 1.0
    assert document["assessment"]["calibration"]["temperature"] is None
    assert document["confusion_matrix"] == [[30, 0], [0, 30]]
    assert document["comparison"] is None


def test_two_models_are_compared_on_the_same_rows(artifact: Artifact, file: Path, tmp_path: Path) -> None:
    other = published(tmp_path / "models", data_fingerprint="sha256:another")
    found = evaluate_model(artifact, other, Asked(data=file, perturbed_rows=0), QUIET)
    assert found.comparison is not None
    assert (found.comparison.first, found.comparison.second) == ("sentiment:1 fp32", "sentiment:2 fp32")
    assert found.comparison.accuracy_difference.value == 0.0
    assert found.comparison.mcnemar.both_right == 60
    # On a file of the user's it is theirs to know what was trained on.
    assert found.comparison.warnings == ()


def test_other_labels_cannot_be_compared(artifact: Artifact, file: Path) -> None:
    labels = {"labels": ("bad", "good")}
    stranger = replace(artifact, manifest=artifact.manifest.model_copy(update=labels))
    with pytest.raises(EvaluationInvalid, match="--against: its labels are bad, good, not negative, positive"):
        evaluate_model(artifact, stranger, Asked(data=file), QUIET)


@pytest.mark.parametrize("rows", [1, 10])
def test_a_few_rows_of_one_label_are_measured_as_far_as_they_go(artifact: Artifact, tmp_path: Path, rows: int) -> None:
    path = tmp_path / "few.csv"
    path.write_text("text,label\n" + "a good film,positive\n" * rows)
    found = evaluate_model(artifact, artifact, Asked(data=path), QUIET)
    assert "roc_auc" not in found.assessed.assessment.metrics
    assert found.assessed.assessment.worst_slice is None
    assert "not measured" in render_model(found)
    assert list(model_tables(found))


def project(home: Path) -> tuple[Artifact, Path]:
    """An artifact that says it was trained by the recipe in `home`."""
    home.mkdir(exist_ok=True)
    tiny.project(home)
    recipe = load_recipe(home / "recipe.toml")
    with Progress(disable=True) as progress:
        prepared = prepare(read_table(recipe, home, progress), recipe, progress)
    return (
        published(home / "models", recipe=public_recipe(recipe), data_fingerprint=prepared.fingerprint),
        home / "recipe.toml",
    )


def test_without_a_file_it_is_the_test_split_of_its_own_recipe(tmp_path: Path) -> None:
    artifact, recipe = project(tmp_path / "home")
    asked = Asked(recipe=str(recipe), perturbed_rows=0)
    found = evaluate_model(artifact, None, asked, QUIET).assessed.assessment
    assert found.data == "test split of reviews.csv"
    assert 20 < found.rows < 80
    stranger = published(tmp_path / "home" / "models", data_fingerprint="sha256:another")
    comparison = evaluate_model(artifact, stranger, asked, QUIET).comparison
    assert comparison is not None
    assert comparison.warnings == (
        "sentiment:2 was trained on other data: these rows may be among those it has learned",
    )


def test_what_cannot_be_evaluated_says_what_to_give(artifact: Artifact, file: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeInvalid, match="give --recipe, or --data"):
        evaluate_model(artifact, None, Asked(), QUIET)
    with pytest.raises(RecipeInvalid, match=r"absent\.toml: No such file"):
        evaluate_model(artifact, None, Asked(data=file, recipe="absent.toml"), QUIET)
    with pytest.raises(ArtifactNotFound, match="no variant 'int4'"):
        evaluate_model(artifact, None, Asked(data=file, variant="int4"), QUIET)
    with pytest.raises(ArtifactNotFound, match="no variant 'int4'"):
        evaluate_model(artifact, artifact, Asked(data=file, against_variant="int4"), QUIET)
    with pytest.raises(EvaluationInvalid, match="--against-variant goes with --against"):
        evaluate_model(artifact, None, Asked(data=file, against_variant="fp32"), QUIET)
    with pytest.raises(EvaluationInvalid, match="--group nothing"):
        evaluate_model(artifact, None, Asked(data=file, groups=("nothing",)), QUIET)
    with pytest.raises(EvaluationInvalid, match=r"probes .*: No such file"):
        evaluate_model(artifact, None, Asked(data=file, probes=tmp_path / "absent.toml"), QUIET)
    with pytest.raises(DataInvalid, match="--text-column"):
        evaluate_model(artifact, None, Asked(data=file, text_column="body"), QUIET)


# --- folds -------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a recipe, its table and its encoder."""
    tiny.project(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLIPWAY_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def test_a_recipe_is_cross_validated_and_finished_folds_are_found(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = evaluate_recipe("recipe.toml", 2, Console(width=200), baseline=True)
    again = evaluate_recipe("recipe.toml", 2, Console(width=200), baseline=True)
    assert (first.found.model, len(first.found.folds)) == ("baseline", 2)
    assert again.found.mean == first.found.mean
    assert again.document() == again.found.model_dump(mode="json")
    said = capsys.readouterr().out.splitlines()
    assert [line.split("accuracy")[0].strip() for line in said if "fold" in line][:2] == [
        "✓ tiny, fold 1 of 2",
        "✓ tiny, fold 2 of 2",
    ]
    assert sum("found finished" in line for line in said) == 2
    assert list((home / "runs" / "tiny").glob("folds-*"))


def test_two_recipes_answer_the_same_folds(home: Path) -> None:
    (home / "cut.toml").write_text((home / "recipe.toml").read_text() + "max_tokens = 8\n")
    found = evaluate_recipe("recipe.toml", 2, QUIET, against="cut.toml", baseline=True, run_dir=home / "run")
    assert found.other is not None
    assert found.comparison is not None
    assert (found.comparison.first, found.comparison.second) == ("recipe.toml", "cut.toml")
    assert found.comparison.rows == sum(fold.rows for fold in found.found.folds)
    assert (found.found.recipe, found.other.recipe) == ("recipe.toml", "cut.toml"), "both are called tiny"
    assert found.document()["comparison"]["rows"] == found.comparison.rows
    assert found.document()["against"]["folds"][0]["rows"] == found.other.folds[0].rows
    assert {path.name for path in (home / "run").iterdir()} >= {"steps", "against"}


def test_each_source_is_left_out_and_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = (home / "reviews.csv").read_text().splitlines()
    for name, part in (("first[a].csv", rows[1:200]), ("second.csv", rows[200:])):
        (home / name).write_text("\n".join([rows[0], *part]) + "\n")
    head, rest = (home / "recipe.toml").read_text().split("[data]\n")
    data = rest[: rest.index("\n[")]
    sources = "".join(
        f"\n[[data.sources]]\n{data.replace('reviews.csv', name)}\n" for name in ("first[a].csv", "second.csv")
    )
    joined = f'{head}[data]\nsource = "joined"\n{sources}{rest[len(data) :]}'
    (home / "joined.toml").write_text(joined)
    found = evaluate_recipe("joined.toml", "sources", Console(width=200), against="joined.toml", baseline=True)
    assert [fold.name for fold in found.found.folds] == ["first[a].csv", "second.csv"]
    assert "without first[a].csv  accuracy" in capsys.readouterr().out
    assert found.comparison is not None
    assert found.comparison.rows == sum(fold.rows for fold in found.found.folds)
    assert [each.name for each in found.comparison.sources] == ["first[a].csv", "second.csv"]

    # The same labels in another order, over one of the sources.
    one = (home / "recipe.toml").read_text().replace("reviews.csv", "second.csv")
    (home / "one.toml").write_text(one.replace('["negative", "positive"]', '["positive", "negative"]'))
    beside = evaluate_recipe("joined.toml", "sources", QUIET, against="one.toml", baseline=True)
    assert beside.comparison is not None
    assert beside.other is not None
    assert [(each.name, each.rows) for each in beside.comparison.sources] == [
        ("first[a].csv", found.found.folds[0].rows)
    ]
    assert beside.other.mean == {}
    assert [(fold.name, fold.rows) for fold in beside.other.folds] == [("(nothing)", beside.comparison.rows)]
    left_out = found.found.folds[1].rows
    assert beside.comparison.warnings == (
        f"{left_out:,} rows are left out: no model of one.toml may be asked about them",
    )
    with pytest.raises(EvaluationInvalid, match=r"recipe\.toml: it shares no row with joined\.toml"):
        evaluate_recipe("joined.toml", "sources", QUIET, against="recipe.toml", baseline=True)
    with pytest.raises(EvaluationInvalid, match=r"^recipe\.toml: --folds sources: needs two sources"):
        evaluate_recipe("recipe.toml", "sources", QUIET, against="joined.toml", baseline=True)


def test_recipes_with_other_labels_start_nothing(tmp_path: Path) -> None:
    tiny.project(tmp_path)
    other = (tmp_path / "recipe.toml").read_text().replace('["negative", "positive"]', '["bad", "good"]')
    (tmp_path / "other.toml").write_text(other)
    with pytest.raises(EvaluationInvalid, match="--against: its labels are bad, good"):
        evaluate_recipe(
            str(tmp_path / "recipe.toml"), 2, QUIET, against=str(tmp_path / "other.toml"), run_dir=tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()


def test_recipes_that_share_no_row_start_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        tiny.project(tmp_path / name)
    table = tmp_path / "other" / "reviews.csv"
    table.write_text(table.read_text().replace(",", " indeed,").replace("text indeed,", "text,"))
    recipes = [str(tmp_path / name / "recipe.toml") for name in ("one", "other")]
    with pytest.raises(EvaluationInvalid, match="it shares no row with"):
        evaluate_recipe(recipes[0], 2, QUIET, against=recipes[1], run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_wrong_number_of_folds_starts_nothing(tmp_path: Path) -> None:
    tiny.project(tmp_path)
    with pytest.raises(EvaluationInvalid, match="--folds 1: must be from 2 to 20"):
        evaluate_recipe(str(tmp_path / "recipe.toml"), 1, QUIET, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_report_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", "<p>")
    assert (tmp_path / "page.html").read_text() == "<p>"
    with pytest.raises(TrainingError, match=r"--report .*page\.html: "):
        write_page(tmp_path / "absent" / "page.html", "<p>")
