"""training/trial.py: what a trial leaves behind when it cannot be run. tests/training/test_tune.py runs whole ones."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from rich.progress import Progress

from tests.training import tiny
from tests.training.tiny import searching
from training import folds
from training.errors import TrainingError
from training.finetune import FineTuned, fine_tune
from training.keys import run_key
from training.prepare import Prepared, prepare
from training.recipe import Recipe
from training.sources import EncoderFolder
from training.space import with_values
from training.steps import key_of, only_user
from training.study import CURVE, REASON, open_study
from training.trial import Task, TrialFailed, objective


@pytest.fixture
def task(tmp_path: Path, progress: Progress) -> Task:
    """A study whose only trial freezes more layers than there are."""
    tiny.project(tmp_path)
    recipe = searching(tmp_path, {"frozen_layers": {"choices": [9]}}, sampler="random")
    return Task(recipe, prepare(tiny.table(), recipe, progress), tmp_path / "study", tmp_path / "cache", 1)


@pytest.fixture
def in_folds(tmp_path: Path, progress: Progress) -> Task:
    """A study of one trial, cross-validated in two short folds."""
    tiny.project(tmp_path)
    recipe = searching(tmp_path, {"epochs": {"choices": [0.3]}}, sampler="random", folds=2)
    return Task(recipe, prepare(tiny.table(), recipe, progress), tmp_path / "study", tmp_path / "cache", 1)


def test_a_trial_taken_up_again_has_its_finished_folds(in_folds: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned: list[Path] = []

    def counted(recipe: Recipe, prepared: Prepared, encoder: EncoderFolder, run_dir: Path, *rest: Any) -> FineTuned:
        tuned.append(run_dir)
        if len(tuned) == 2:
            raise KeyboardInterrupt
        return fine_tune(recipe, prepared, encoder, run_dir, *rest)

    monkeypatch.setattr(folds, "fine_tune", counted)
    with pytest.raises(KeyboardInterrupt):
        objective(in_folds, trial_of(in_folds), None)
    trial = trial_of(in_folds)
    objective(in_folds, trial, None)
    assert [path.name for path in tuned] == ["fold-1", "fold-2", "fold-2"]
    assert [done for done, _ in trial.user_attrs[CURVE]] == [1, 2]


@pytest.mark.parametrize("folded", [True, False])
def test_a_worker_whose_study_was_killed_ends(
    task: Task, in_folds: Task, monkeypatch: pytest.MonkeyPatch, folded: bool
) -> None:
    class Ended(Exception):
        """In place of the end of the process."""

    def end(status: int) -> None:
        raise Ended

    monkeypatch.setattr(os, "_exit", end)
    recipe = with_values(in_folds.recipe, {})
    if not folded:
        recipe = recipe.model_copy(update={"tune": recipe.tune.model_copy(update={"folds": None})})
    study = replace(in_folds, recipe=recipe, folder=in_folds.folder / "apart")
    with pytest.raises(Ended):
        objective(study, trial_of(study), os.getppid() + 1)


def trial_of(task: Task) -> optuna.Trial:
    return open_study(task.recipe, task.folder).ask()


def test_values_that_cannot_be_trained_leave_a_reason_and_no_folder(task: Task) -> None:
    trial = trial_of(task)
    with pytest.raises(TrialFailed):
        objective(task, trial, None)
    assert "training.frozen_layers: 9, but the encoder has 2" in trial.user_attrs[REASON]
    assert list((task.folder / "trials").iterdir()) == []


def test_values_that_another_worker_is_at_are_left_to_it(task: Task) -> None:
    recipe = with_values(task.recipe, {"training.frozen_layers": 9})
    home = task.folder / "trials" / key_of(run_key(recipe, task.prepared))[:16]
    trial = trial_of(task)
    with only_user(home), pytest.raises(TrialFailed):
        objective(task, trial, None)
    assert trial.user_attrs[REASON] == "another trial was at the same values"
    assert home.is_dir()


def test_a_folder_that_cannot_be_made_ends_the_study_and_not_only_the_trial(task: Task) -> None:
    task.folder.mkdir()
    trial = trial_of(task)
    (task.folder / "trials").write_text("in the way")
    with pytest.raises(TrainingError, match="trials"):
        objective(task, trial, None)
    assert REASON not in trial.user_attrs
