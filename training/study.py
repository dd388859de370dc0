"""A study in its folder: Optuna's trials in SQLite, taken up again where they were interrupted."""

import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
import optuna
from filelock import FileLock
from optuna.trial import FrozenTrial, TrialState

from training.errors import RecipeInvalid
from training.recipe import Recipe, TuneSection
from training.space import grid

# Attributes of a trial: why it failed, its quality on the way, the interval of its mean over folds, and which
# interrupted one it does again.
REASON: Final = "reason"
CURVE: Final = "curve"
INTERVAL: Final = "interval"
# An attribute of a study: what decides its figures.
_KEY: Final = "key"
_AGAIN: Final = "again"


class OneTakesIt(optuna.storages.RDBStorage):
    """SQLite locks no row that is read for an update, so that two workers could take up the same waiting trial."""

    def __init__(self, database: Path) -> None:
        super().__init__(f"sqlite:///{database}", engine_kwargs={"connect_args": {"timeout": 60}})
        self._taking = FileLock(database.with_suffix(".lock"))

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """False where another worker was first."""
        with self._taking:
            return super().set_trial_state_values(trial_id, state, values)


class MedianOfMeans(optuna.pruners.BasePruner):
    """Gives a trial up whose mean over its folds so far is worse than the median of the finished ones after as many.

    Optuna's own median pruner compares the best value a trial has had: right for a curve that rises, wrong for a mean,
    which is best after the easiest fold.
    """

    def __init__(self, warmup_trials: int, direction: Literal["maximize", "minimize"]) -> None:
        self._warmup_trials = warmup_trials
        self._sign = 1 if direction == "maximize" else -1

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether to end it after its last fold."""
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        folds = trial.last_step
        means = [each.intermediate_values[folds] for each in done if folds in each.intermediate_values]
        if folds is None or len(done) < self._warmup_trials or not means:
            return False
        return self._sign * trial.intermediate_values[folds] < self._sign * statistics.median(means)


def check_study(study: optuna.Study, key: str, folder: Path) -> None:
    """Raises RecipeInvalid where the trials of the study in `folder` cannot be compared with those of `key`."""
    if (found := study.user_attrs.get(_KEY)) not in (None, key):
        raise _of_another(folder)
    if found is None:
        study.set_user_attr(_KEY, key)


def _of_another(folder: Path) -> RecipeInvalid:
    what = "of another recipe or other data, or one that was judged in another way"
    return RecipeInvalid(f"{folder} holds a study {what}; take another --run-dir")


def open_study(recipe: Recipe, folder: Path, worker: int = 0) -> optuna.Study:
    """The study in its folder, made on the first call. Every worker draws from a seed of its own.

    Raises RecipeInvalid where the folder holds that of another model.
    """
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    section = recipe.tune
    folder.mkdir(parents=True, exist_ok=True)
    database = folder.resolve() / "study.db"
    if not database.is_file():
        _make(database, recipe)
    try:
        study = optuna.load_study(study_name=recipe.name, storage=OneTakesIt(database), pruner=_pruner(section))
    except KeyError as error:
        raise _of_another(folder) from error
    study.sampler = sampler_of(section, len(study.trials), worker)
    return study


def _make(database: Path, recipe: Recipe) -> None:
    """The whole database or none: one that a full disk cut short could never be opened again."""
    for left in database.parent.glob(".study.partial*"):
        left.unlink()
    partial = database.with_name(".study.partial")
    storage = optuna.storages.RDBStorage(f"sqlite:///{partial}")
    directions = [direction(recipe.tune.objective)]
    if recipe.tune.latency:
        directions.append("minimize")
    optuna.create_study(study_name=recipe.name, storage=storage, directions=directions)
    storage.engine.dispose()
    partial.replace(database)


def direction(objective: str) -> Literal["maximize", "minimize"]:
    """Which way an objective is better."""
    return "maximize" if objective == "accuracy" else "minimize"


def _pruner(section: TuneSection) -> optuna.pruners.BasePruner:
    if not section.prune:
        return optuna.pruners.NopPruner()
    if section.folds is not None:
        return MedianOfMeans(section.warmup_trials, direction(section.objective))
    return optuna.pruners.MedianPruner(n_startup_trials=section.warmup_trials)


def sampler_of(section: TuneSection, done: int, worker: int) -> optuna.samplers.BaseSampler:
    """A sampler that proposes neither what a parallel worker does nor what it did before it was killed."""
    seed = int(np.random.SeedSequence([section.seed, done, worker]).generate_state(1)[0])
    if section.sampler == "tpe":
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=section.warmup_trials)
    return optuna.samplers.RandomSampler(seed=seed)


def take_up(study: optuna.Study, recipe: Recipe, wanted: int | float) -> None:
    """Trials that were interrupted are run again, with the values they had; a grid is laid out."""
    trials = study.get_trials(deepcopy=False)
    taken_up = {trial.user_attrs.get(_AGAIN) for trial in trials}
    for trial in trials:
        if trial.state is TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
        elif trial.state is not TrialState.FAIL or REASON in trial.user_attrs:
            continue
        if trial.number not in taken_up:
            study.enqueue_trial(trial.params, user_attrs={_AGAIN: trial.number})
    if recipe.tune.sampler == "grid":
        for cell in itertools.islice(grid(recipe), int(wanted)):
            study.enqueue_trial(cell, skip_if_exists=True)


def finished(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Trials that are over for good. One that failed without a reason was interrupted, and another does its work."""
    return [
        trial
        for trial in trials
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        or (trial.state is TrialState.FAIL and REASON in trial.user_attrs)
    ]
