"""training/study.py: seeds of their own, and one worker for each trial."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest

from tests.training import tiny
from training.errors import RecipeInvalid
from training.recipe import TuneSection
from training.study import MedianOfMeans, OneTakesIt, check_study, open_study, sampler_of


def test_every_worker_draws_from_a_seed_of_its_own() -> None:
    section = TuneSection(sampler="random")
    drawn = set()
    for done, worker in ((0, 0), (0, 1), (0, 2), (5, 1)):
        study = optuna.create_study(sampler=sampler_of(section, done, worker))
        drawn.add(study.ask().suggest_float("x", 0, 1))
    assert len(drawn) == 4


def test_of_two_workers_one_takes_up_a_trial(tmp_path: Path) -> None:
    """SQLite lets both read that it waits: without the lock both would run it, and one find it finished."""
    database = tmp_path / "study.db"
    study = optuna.create_study(study_name="race", storage=OneTakesIt(database))
    for turn in range(30):
        study.enqueue_trial({"turn": turn})
    numbers = [trial._trial_id for trial in study.get_trials()]
    starts = [threading.Barrier(2) for _ in numbers]

    def take() -> list[bool]:
        storage = OneTakesIt(database)
        taken = []
        for number, start in zip(numbers, starts, strict=True):
            start.wait()
            taken.append(storage.set_trial_state_values(number, optuna.trial.TrialState.RUNNING))
        return taken

    with ThreadPoolExecutor(2) as pool:
        one, other = (future.result() for future in [pool.submit(take), pool.submit(take)])
    assert [sum(both) for both in zip(one, other, strict=True)] == [1] * len(numbers)


@pytest.mark.parametrize(
    ("means", "given_up"),
    [
        # The first fold is the easiest for everybody: what counts is the mean after as many folds.
        ((0.95, 0.85), [False, True]),
        ((0.80, 0.95), [True]),
        ((0.95, 0.89, 0.89), [False, False, False]),
    ],
)
def test_a_mean_over_folds_is_held_against_means_over_as_many(means: tuple[float, ...], given_up: list[bool]) -> None:
    for sign, direction in ((1, "maximize"), (-1, "minimize")):
        study = optuna.create_study(direction=direction, pruner=MedianOfMeans(2, direction))  # type: ignore[arg-type]
        for finished in ((0.94, 0.88, 0.88), (0.92, 0.88, 0.87)):
            assert _given_up(study, [sign * mean for mean in finished]) == [False] * 3
        assert _given_up(study, [sign * mean for mean in means]) == given_up


def _given_up(study: optuna.Study, means: list[float]) -> list[bool]:
    """What the pruner says after each fold, until it gives the trial up."""
    trial, said = study.ask(), []
    for fold, mean in enumerate(means, 1):
        trial.report(mean, fold)
        said.append(trial.should_prune())
        if said[-1]:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return said
    study.tell(trial, means[-1])
    return said


def test_a_folder_with_another_study_is_refused(tmp_path: Path) -> None:
    study = optuna.create_study()
    for _ in range(2):
        check_study(study, "accuracy in validation", tmp_path)
    with pytest.raises(RecipeInvalid, match=r"holds a study of another recipe or other data, or one that was judged"):
        check_study(study, "accuracy over folds", tmp_path)
    recipe = tiny.recipe()
    open_study(recipe, tmp_path)
    with pytest.raises(RecipeInvalid, match=r"holds a study of another recipe .*; take another --run-dir"):
        open_study(recipe.model_copy(update={"name": "other"}), tmp_path)
