"""training/track.py: real local stores, and silence where nothing was asked for."""

import logging
import os
import subprocess
import sys
import warnings
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.progress import Progress

from artifact.manifest import Estimate
from tests.training import tiny
from training import finetune, track
from training.errors import RecipeInvalid, TrainingError
from training.prepare import prepare
from training.provenance import ROOT, public_recipe
from training.runs import RunSummary
from training.sources import EncoderFolder
from training.track import reporters, tracked
from training.trainer import arguments_of

SUMMARY = RunSummary(
    model="tiny",
    finished=datetime(2026, 1, 1, tzinfo=UTC),
    recipe={},
    data_fingerprint="sha256:0",
    weights_digest="1" * 64,
    steps=3,
    seconds=1.0,
    metrics={"accuracy": Estimate(value=0.8, low=0.7, high=0.9)},
    version=4,
    digest="sha256:2",
)
_OFF = """
import sys
from pathlib import Path
from rich.progress import Progress
from tests.training import tiny
from training import finetune, pipeline, tune
from training.prepare import prepare
from training.sources import EncoderFolder
from training.track import tracked

folder = Path(sys.argv[2])
recipe = tiny.recipe(training__epochs=0.2)
with Progress(disable=True) as bars, tracked(recipe, folder) as record:
    encoder = EncoderFolder(Path(sys.argv[1]), "tiny", "MIT", "made for a test")
    finetune.fine_tune(recipe, prepare(tiny.table(100), recipe, bars), encoder, folder, bars)
    record(None)
trackers = {"mlflow", "comet_ml", "wandb", "tensorboard", "tensorboardX"}
print(sorted(trackers & set(sys.modules)))
"""


def test_off_means_that_no_tracker_is_even_imported(encoder: EncoderFolder, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _OFF, encoder.path, tmp_path / "run"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
    assert not (tmp_path / "runs").exists()


_REPORTS = "import training, os; print(os.environ['COMET_ERROR_TRACKING_ENABLE'])"


@pytest.mark.parametrize(("set_before", "found"), [({}, "false"), ({"COMET_ERROR_TRACKING_ENABLE": "true"}, "true")])
def test_comet_reports_no_errors_to_its_maker_unless_told_to(set_before: dict[str, str], found: str) -> None:
    kept = {name: value for name, value in os.environ.items() if name != "COMET_ERROR_TRACKING_ENABLE"}
    done = subprocess.run(
        [sys.executable, "-c", _REPORTS],
        cwd=ROOT,
        env={**kept, **set_before},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == found


def test_off_is_the_default_and_the_trainer_reports_to_nobody(tmp_path: Path) -> None:
    recipe = tiny.recipe()
    assert reporters(recipe.track) == []
    arguments = arguments_of(recipe.training, "fp32", tmp_path, 100, reporters(recipe.track))
    assert arguments.report_to == []
    assert "track" not in public_recipe(recipe)


def test_what_is_on_is_what_the_trainer_reports_to() -> None:
    assert reporters(tiny.recipe(track={"mlflow": True, "tensorboard": True}).track) == ["mlflow", "tensorboard"]


def test_a_tracker_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track, "find_spec", lambda name: None)
    with pytest.raises(RecipeInvalid, match=r"track\.comet: needs comet_ml, .*: pip install comet_ml"):
        reporters(tiny.recipe(track={"comet": True}).track)
    with pytest.raises(RecipeInvalid, match=r"track\.mlflow: needs mlflow, .*: pip install 'slipway\[track\]'"):
        reporters(tiny.recipe(track={"mlflow": True}).track)


def test_what_comet_refuses_is_the_recipes_to_mend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(track, "find_spec", lambda name: name)
    recipe = tiny.recipe(track={"comet": True})
    with pytest.raises(RecipeInvalid, match=r"^track\.comet: Comet\.ml requires an API key"), tracked(recipe, tmp_path):
        raise ValueError("Comet.ml requires an API key. ")
    with pytest.raises(ValueError, match="not ours"), tracked(recipe, tmp_path):
        raise ValueError("not ours")


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(RecipeInvalid, match=r"track\.wandb: unknown key"):
        tiny.recipe(track={"wandb": True})


@pytest.mark.filterwarnings("default")
def test_a_run_is_in_the_local_store_once_however_often_it_was_resumed(
    encoder: EncoderFolder, tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    recipe = tiny.recipe(training__epochs=1, track={"mlflow": True, "tensorboard": True})
    prepared = prepare(tiny.table(100), recipe, progress)
    folder = tmp_path / "runs" / "tiny" / "abc"
    folder.mkdir(parents=True)
    for _ in range(2):
        with tracked(recipe, folder) as record:
            finetune.fine_tune(
                recipe, prepared, encoder, folder / "fine-tune", progress, report_to=reporters(recipe.track)
            )
            record(SUMMARY)
    assert "MLFLOW_TRACKING_URI" not in os.environ
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "abc"
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test_accuracy"] == 0.8
    assert run.data.metrics["test_accuracy_low"] == 0.7
    assert "eval_accuracy" in run.data.metrics, "the Trainer's own integration logged into the same run"
    assert run.data.params["learning_rate"] == "0.003"
    assert run.data.tags["slipway.artifact"] == "tiny:4"
    assert list((folder / "tensorboard").glob("events.out.*"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


def test_a_store_that_cannot_be_used_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://store")
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with (
        warnings.catch_warnings(action="ignore"),
        pytest.raises(TrainingError, match=r"track\.mlflow: the store cannot be used"),
        tracked(tiny.recipe(track={"mlflow": True}), tmp_path),
    ):
        raise AssertionError("no run can have started")
