"""training/trial.py: what a trial leaves behind when it cannot be run. tests/training/test_tune.py runs whole ones."""

from pathlib import Path

import optuna
import pytest
from rich.progress import Progress

from tests.training import tiny
from tests.training.tiny import searching
from training.errors import TrainingError
from training.keys import run_key
from training.prepare import prepare
from training.space import with_values
from training.steps import key_of, only_user
from training.study import REASON, open_study
from training.trial import Task, TrialFailed, objective


@pytest.fixture
def task(tmp_path: Path, progress: Progress) -> Task:
    """A study whose only trial freezes more layers than there are."""
    tiny.project(tmp_path)
    recipe = searching(tmp_path, {"frozen_layers": {"choices": [9]}}, sampler="random")
    return Task(recipe, prepare(tiny.table(), recipe, progress), tmp_path / "study", tmp_path / "cache", 1)


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
