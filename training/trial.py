"""One trial of a study: fine-tune with other values, judge on rows not learned from, stop where it is hopeless."""

import os
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import optuna
import torch
import transformers
from rich.progress import Progress

from training.classifier import load_model, load_tokenizer
from training.errors import TrainingError
from training.finetune import CurvePoint, FineTuned, fine_tune
from training.fold_plan import FoldPlan
from training.folds import FoldResult, Validated, cross_validate
from training.keys import run_key
from training.prepare import Prepared
from training.recipe import Recipe, TuneSection
from training.sources import fetch_encoder
from training.space import space_of, suggest, with_values
from training.steps import key_of, only_user
from training.study import CURVE, INTERVAL, REASON
from training.windowing import windowed

# Intermediate values are compared at the same share of an epoch, whatever the batch size.
_STEPS_PER_EPOCH: Final = 10
_TIMED_RUNS: Final = 15


class TrialFailed(Exception):
    """One trial failed as trials may; its reason is in the study, which goes on."""


@dataclass(frozen=True)
class Task:
    """What a worker needs. It crosses into other processes."""

    recipe: Recipe
    prepared: Prepared
    folder: Path
    cache: Path
    threads: int


def objective(task: Task, trial: optuna.Trial, parent: int | None) -> float | tuple[float, float]:
    """One trial in a folder of its own, which is gone when the trial is over.

    Whatever came of it is in the study. A process that is killed or interrupted leaves its checkpoints, to go on from.
    """
    recipe = with_values(task.recipe, suggest(trial, space_of(task.recipe)))
    home = task.folder / "trials" / key_of(run_key(recipe, task.prepared))[:16]
    try:
        with only_user(home):
            measured = _measured(task, trial, recipe, home, parent)
    except optuna.TrialPruned:
        shutil.rmtree(home, ignore_errors=True)
        raise
    except TrainingError as error:
        cause = error.__cause__
        if isinstance(cause, BlockingIOError):
            trial.set_user_attr(REASON, "another trial was at the same values")
            raise TrialFailed from error
        if isinstance(cause, OSError):
            raise  # the disk, not the values: every other trial would meet it too
        shutil.rmtree(home, ignore_errors=True)
        trial.set_user_attr(REASON, error.message)
        raise TrialFailed from error
    shutil.rmtree(home, ignore_errors=True)
    return measured


def _measured(
    task: Task, trial: optuna.Trial, recipe: Recipe, home: Path, parent: int | None
) -> float | tuple[float, float]:
    """The quality on rows not learned from, and the latency where it counts."""
    section, end_with_study = task.recipe.tune, EndWithStudy(parent)
    with Progress(disable=True) as bars:
        encoder = fetch_encoder(recipe.encoder, task.cache, bars)
        if section.folds is not None:
            plan = FoldPlan.of(task.prepared, recipe, section.folds)
            cross_validated = partial(
                cross_validate, recipe, task.prepared, encoder, home, bars, plan, callbacks=[end_with_study]
            )
            return _over_folds(trial, section.objective, section.folds, cross_validated)
        watch = Watch(trial, section)
        tuned = fine_tune(recipe, task.prepared, encoder, home / "fine-tune", bars, [watch, end_with_study])
    curve = [(point.epoch, _value(point, section.objective)) for point in tuned.curve if point.kind == "validation"]
    trial.set_user_attr(CURVE, curve)
    quality = _quality(tuned, section.objective)
    return (quality, latency_seconds(tuned, task.prepared.validation.texts)) if section.latency else quality


def _over_folds(trial: optuna.Trial, objective: str, folds: int, cross_validated: Callable[..., Validated]) -> float:
    """The mean over the folds, as `slipway evaluate --folds` counts it; between them the pruner may end the trial."""
    values: list[float] = []

    def report(fold: FoldResult) -> None:
        values.append(fold.metrics[objective].value)
        trial.set_user_attr(CURVE, [(done, statistics.fmean(values[:done])) for done in range(1, len(values) + 1)])
        trial.report(statistics.fmean(values), len(values))
        if len(values) < folds and trial.should_prune():
            raise optuna.TrialPruned

    mean = cross_validated(on_fold=report).found.mean[objective]
    trial.set_user_attr(INTERVAL, (mean.low, mean.high))
    return mean.value


class EndWithStudy(transformers.TrainerCallback):  # type: ignore[misc]
    """A worker whose study was killed ends too, and leaves its checkpoints."""

    def __init__(self, parent: int | None) -> None:
        self._parent = parent

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ends the process at once: nobody waits for it."""
        if self._parent is not None and os.getppid() != self._parent:
            os._exit(1)


class Watch(transformers.TrainerCallback):  # type: ignore[misc]
    """Reports every pass over the validation split, and ends a trial that the pruner gives up."""

    def __init__(self, trial: optuna.Trial, section: TuneSection) -> None:
        self._trial = trial
        self._section = section
        self._curve: list[tuple[float, float]] = []

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Mapping[str, float], **_: Any) -> None:
        """Raises TrialPruned."""
        value = float(metrics[f"eval_{self._section.objective}"])
        self._curve.append((round(float(state.epoch), 3), value))
        self._trial.set_user_attr(CURVE, self._curve)
        if self._section.latency:
            return  # Optuna compares trials on their way by one objective only
        self._trial.report(value, round(state.epoch * _STEPS_PER_EPOCH))
        if self._trial.should_prune():
            raise optuna.TrialPruned


def _quality(tuned: FineTuned, objective: str) -> float:
    """The objective at the step whose checkpoint was kept."""
    points = (point for point in tuned.curve if point.kind == "validation" and point.step == tuned.best_step)
    return _value(next(points), objective)


def _value(point: CurvePoint, objective: str) -> float:
    return float(point.accuracy or 0.0) if objective == "accuracy" else point.loss


def latency_seconds(tuned: FineTuned, texts: Sequence[str]) -> float:
    """Median seconds for one text alone, of median length, through torch on this process's threads."""
    model, tokenizer = load_model(tuned.model_dir, attention="sdpa"), load_tokenizer(tuned.model_dir)
    text = sorted(texts, key=len)[len(texts) // 2]
    # Windows of one text are rows that are computed together, as the service would.
    rows, _ = windowed(tokenizer, [text], tuned.max_input_tokens, tuned.window_tokens)
    inputs = tokenizer.pad(rows, return_tensors="pt")
    taken = []
    with torch.inference_mode():
        for _ in range(_TIMED_RUNS):
            began = time.perf_counter()
            model(**inputs)
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)
