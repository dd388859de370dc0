"""From a recipe and a table to a published artifact: once, again, refused, and killed half-way."""

import io
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from artifact.repository import Artifact, Repository, open_artifact
from inference.errors import BadInput
from inference.model import Model
from tests.training import tiny
from training.classifier import load_model, load_tokenizer, predict_logits
from training.errors import GateRefused, RecipeInvalid
from training.evaluate import softmax
from training.pipeline import train
from training.provenance import ROOT
from training.recipe import CardSection, PrepareSection, Recipe, load_recipe


@dataclass(frozen=True)
class Place:
    """A recipe with its data and encoder, and the run that was made of it."""

    home: Path
    artifact: Artifact
    said: str

    @property
    def recipe(self) -> Recipe:
        return load_recipe(self.home / "recipe.toml")

    @property
    def run_dir(self) -> Path:
        return self.home / "run"

    def again(
        self, repository: Path, run_dir: Path | None = None, *, promote: bool = False, **gate: float
    ) -> tuple[Artifact, str]:
        """Train once more, in the same folder unless told otherwise; with tighter floors where given."""
        recipe = self.recipe.model_copy(update={"gate": self.recipe.gate.model_copy(update=gate)})
        out = io.StringIO()
        artifact = train(
            recipe,
            repository,
            run_dir or self.run_dir,
            promote=promote,
            cache=self.home / "cache",
            console=Console(file=out, width=400),
        )
        return artifact, out.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    home = tmp_path_factory.mktemp("train")
    tiny.project(home)
    out = io.StringIO()
    artifact = train(
        load_recipe(home / "recipe.toml"),
        home / "models",
        home / "run",
        cache=home / "cache",
        console=Console(file=out, width=400),
    )
    return Place(home, artifact, out.getvalue())


def test_every_step_reports_in_one_line(place: Place) -> None:
    steps = [line.split()[1] for line in place.said.splitlines() if line.startswith("✓")]
    assert steps == ["fetch", "prepare", "baseline", "fine-tune", "evaluate", "export", "gate", "assess", "publish"]


def test_the_published_artifact_is_whole_and_answers(place: Place) -> None:
    artifact = open_artifact(place.home / "models" / "tiny" / "1")
    assert artifact.digest == place.artifact.digest
    assert {
        "model.onnx",
        "model.onnx.data",
        "tokenizer.json",
        "golden.json",
        "MODEL_CARD.md",
        "DATA_CARD.md",
        "report.html",
    } <= artifact.manifest.files.keys()
    assert artifact.unlisted() == []
    assert Repository(place.home / "models").aliases("tiny") == {"production": 1}
    model = Model.load(artifact)
    try:
        answer = model.predict(["a superb witty film", "a dull tedious film"])
    finally:
        model.close()
    assert [prediction.label for prediction in answer.predictions] == ["positive", "negative"]


def test_the_manifest_says_where_the_model_came_from(place: Place) -> None:
    manifest = place.artifact.manifest
    assert manifest.variants[0].name == "fp32"
    assert manifest.length_quantiles.keys() == {"p50", "p90", "p95", "p99", "max"}
    provenance = manifest.provenance
    assert provenance.data_fingerprint.startswith("sha256:")
    assert provenance.rows["read"] == 300
    assert provenance.libraries["torch"].startswith("2.")
    assert provenance.recipe["data"]["path"] == "reviews.csv"
    assert provenance.recipe["encoder"]["name"] == "encoder"
    assert manifest.gate.passed
    assert manifest.gate.test_rows == provenance.rows["test"]
    assert manifest.gate.reference_metrics["accuracy"].value > 0.9
    assert "accuracy" in manifest.gate.baseline_metrics
    assert sum(map(sum, manifest.gate.confusion_matrix)) == manifest.gate.test_rows


def test_the_artifact_says_where_it_is_weaker(place: Place) -> None:
    manifest = place.artifact.manifest
    found = manifest.assessment
    assert found is not None
    assert (found.variant, found.rows) == ("fp32", manifest.gate.test_rows)
    # Through the serving path and in torch: the same model.
    assert found.metrics["accuracy"].value == manifest.gate.reference_metrics["accuracy"].value
    assert sum(each.rows for each in found.slices if each.by == "length") == found.rows
    assert {each.name for each in found.robustness} >= {"typos", "negation"}
    assert len(found.bias) == 7
    assert found.calibration.temperature is not None
    assert found.calibration.before.keys() == found.calibration.after.keys()
    report, card = ((place.artifact.path / name).read_text() for name in ("report.html", "MODEL_CARD.md"))
    assert found.bias[0].worst.terms[0] in report
    assert "| length: " in card


def test_no_path_of_this_machine_is_published(place: Place) -> None:
    for name in ("manifest.json", "MODEL_CARD.md", "DATA_CARD.md", "report.html", "golden.json"):
        assert str(place.home) not in (place.artifact.path / name).read_text()


def test_a_run_that_is_done_does_nothing_again(place: Place) -> None:
    artifact, said = place.again(place.home / "models")
    assert (artifact.path, artifact.digest) == (place.artifact.path, place.artifact.digest)
    found = {line.split()[1] for line in said.splitlines() if "found finished" in line}
    assert {"baseline", "export", "gate", "assess", "publish"} <= found
    assert Repository(place.home / "models").versions("tiny") == [1]


def test_another_run_is_another_version_and_takes_over_when_asked(place: Place, tmp_path: Path) -> None:
    repository = tmp_path / "models"
    first, _ = place.again(repository)
    assert Repository(repository).versions("tiny") == [1]
    (place.run_dir / "steps" / "published.json").unlink()
    second, _ = place.again(repository)
    assert (first.manifest.version, second.manifest.version) == (1, 2)
    assert Repository(repository).aliases("tiny") == {"production": 1}
    place.again(repository, promote=True)
    assert Repository(repository).versions("tiny") == [1, 2]
    assert Repository(repository).aliases("tiny") == {"production": 2}


def test_what_only_a_person_can_say_makes_a_new_version(place: Place, tmp_path: Path) -> None:
    first, _ = place.again(tmp_path / "models")
    recipe = place.recipe.model_copy(update={"card": CardSection(intended_use="Sorting letters to the editor.")})
    second = train(recipe, tmp_path / "models", place.run_dir, cache=place.home / "cache", console=Console(quiet=True))
    assert (first.manifest.version, second.manifest.version) == (1, 2)
    for name in ("MODEL_CARD.md", "DATA_CARD.md"):
        assert "intended use: not stated" in (first.path / name).read_text()
        assert "intended use: Sorting letters to the editor." in (second.path / name).read_text()


def test_a_damaged_artifact_is_published_anew(place: Place, tmp_path: Path) -> None:
    repository = tmp_path / "models"
    first, _ = place.again(repository)
    (first.path / "model.onnx").write_bytes(b"torn")
    second, _ = place.again(repository)
    assert second.manifest.version == 2


def test_a_refused_model_is_not_published_and_its_report_says_why(place: Place, tmp_path: Path) -> None:
    with pytest.raises(GateRefused, match=r"fp32: score difference from torch: .* nothing was published") as caught:
        place.again(tmp_path / "models", max_score_difference=0.0)
    assert caught.value.exit_status == 3
    assert Repository(tmp_path / "models").models() == []
    assert "gate refused: nothing published" in (place.run_dir / "report.html").read_text()


def test_a_model_that_swapped_terms_move_too_far_is_not_published(place: Place, tmp_path: Path) -> None:
    with pytest.raises(GateRefused, match=r"fp32: score moved by swapped terms \(.*\): .*, required <= 0") as caught:
        place.again(tmp_path / "models", max_term_movement=0.0)
    assert caught.value.exit_status == 3
    assert Repository(tmp_path / "models").models() == []
    report = (place.run_dir / "report.html").read_text()
    assert "gate refused: nothing published" in report
    assert "score moved by swapped terms" in report
    place.again(tmp_path / "models", max_term_movement=1.0)
    assert Repository(tmp_path / "models").versions("tiny") == [1]


def test_an_exported_file_that_was_touched_goes_through_the_gate_again(place: Place, tmp_path: Path) -> None:
    place.again(tmp_path / "models")
    path = place.run_dir / "export" / "model.onnx"
    whole = path.read_bytes()
    try:
        path.write_bytes(b"something else")
        with pytest.raises(GateRefused, match="fp32: could not be run"):
            place.again(tmp_path / "models")
    finally:
        path.write_bytes(whole)


def test_a_recipe_that_loosens_the_gate_stops_before_any_work(tmp_path: Path, place: Place) -> None:
    recipe = place.recipe.model_copy(
        update={"gate": place.recipe.gate.model_copy(update={"max_neighbour_score_difference": 0.5})}
    )
    with pytest.raises(RecipeInvalid, match=r"gate\.max_neighbour_score_difference"):
        train(recipe, tmp_path / "models", tmp_path / "run", cache=tmp_path / "cache")
    assert list(tmp_path.iterdir()) == []


def test_the_service_cleans_and_reads_as_the_training_did(place: Place, tmp_path: Path) -> None:
    recipe = place.recipe.model_copy(
        update={
            "prepare": PrepareSection(transforms=("html", "pii", "stop_words")),
            "training": place.recipe.training.model_copy(update={"window_tokens": 16, "max_text_tokens": 200}),
        }
    )
    artifact = train(recipe, tmp_path / "models", tmp_path / "run", cache=place.home / "cache")
    preprocessing, provenance = artifact.manifest.preprocessing, artifact.manifest.provenance
    assert preprocessing.transforms == ("html", "pii", "stop_words")
    assert (preprocessing.window_tokens, artifact.manifest.limits.max_input_tokens) == (16, 200)
    assert {"the", "a"} <= set(preprocessing.stop_words)
    assert provenance.transformed["stop_words"] > 0
    assert provenance.recipe["prepare"]["transforms"] == ["html", "pii", "stop_words"]
    model = Model.load(artifact)
    try:
        raw, clean = model.predict(["the <b>superb</b> film", "superb film"]).predictions
        with pytest.raises(BadInput, match=r"inputs\[0\]: holds nothing"):
            model.predict(["the <br/>"])
        long = ["superb dull witty family war city " * 20, "moving stale " * 40]
        answer = model.predict(long)
    finally:
        model.close()
    assert raw.scores == pytest.approx(clean.scores, abs=1e-6)
    assert answer.windows == (9, 6)
    folder = tmp_path / "run" / "fine-tune" / "model"
    logits = predict_logits(load_model(folder), load_tokenizer(folder), long, max_tokens=200, window_tokens=16)
    assert [each.scores for each in answer.predictions] == [pytest.approx(row, abs=1e-4) for row in softmax(logits)]


KILLED_BEFORE_THE_RENAME = """
import os, signal, sys
from pathlib import Path
from training import pipeline
from training.recipe import load_recipe

def killed(staged, *_, **__):
    print(sorted(path.name for path in staged.iterdir()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

pipeline.publish = killed
home, repository = map(Path, sys.argv[1:])
pipeline.train(load_recipe(home / "recipe.toml"), repository, home / "run", cache=home / "cache")
"""


def test_a_run_killed_while_publishing_leaves_nothing_visible_and_goes_on(place: Place, tmp_path: Path) -> None:
    repository = tmp_path / "models"
    done = subprocess.run(
        [sys.executable, "-c", KILLED_BEFORE_THE_RENAME, place.home, repository],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert "model.onnx" in done.stdout
    assert Repository(repository).models() == []
    artifact, said = place.again(repository)
    assert artifact.manifest.version == 1
    assert re.search(r"gate .*found finished", said)
