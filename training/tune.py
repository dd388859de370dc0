"""`slipway tune`: a study over the fields of a recipe with Optuna (Akiba et al. 2019, arXiv:1907.10902).

    <study>/study.db        every trial, by Optuna in SQLite; a study that was killed goes on from here
    <study>/trials/<key>/   a trial on its way: its checkpoints, gone when it is over
    <study>/best.toml       the best trial as a recipe for `slipway train`
    <study>/report.html     every trial, in plots

A trial fine-tunes on the training split and is judged on the validation split. Nothing here looks at the test split,
so what `slipway train best.toml` measures there is not flattered by the search.
"""

import itertools
import math
import multiprocessing
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import optuna
import tomli_w
import torch
import transformers
from filelock import FileLock
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.progress import Progress

from artifact.files import cache_dir, write_atomically
from training.classifier import load_model, load_tokenizer
from training.errors import RecipeInvalid, TrainingError
from training.finetune import CurvePoint, FineTuned, fine_tune
from training.keys import run_key
from training.pipeline import Line
from training.prepare import Prepared
from training.progress import progress_on
from training.quiet import quiet
from training.recipe import Recipe, Search, TuneSection, parse_recipe, with_paths
from training.sources import fetch_encoder, no_telemetry
from training.steps import key_of, only_user
from training.tune_report import TrialResult, Tuned, Value, render_study
from training.windowing import windowed

Values = Mapping[str, Value]

# What is searched where a recipe names nothing: the fields that matter most for a small encoder.
DEFAULT_SPACE: Final[Mapping[str, Search]] = {
    "training.learning_rate": Search(low=2e-5, high=4e-4, log=True),
    "training.layer_decay": Search(low=0.7, high=1.0, step=0.1),
    "training.batch_size": Search(choices=(16, 32, 64)),
    "training.weight_decay": Search(low=1e-3, high=0.1, log=True),
    "training.dropout": Search(low=0.0, high=0.3, step=0.1),
    "training.label_smoothing": Search(low=0.0, high=0.1, step=0.05),
    "training.schedule": Search(choices=("linear", "cosine")),
}
_REASON: Final = "reason"
_AGAIN: Final = "again"
_STOPPED: Final = "stopped"
_NOT_TUNED: Final = frozenset({"training.seed", "encoder.source", "encoder.revision"})
# Intermediate values are compared at the same share of an epoch, whatever the batch size.
_STEPS_PER_EPOCH: Final = 10
_TIMED_RUNS: Final = 15
_POLL_SECONDS: Final = 0.5


class _TrialFailed(Exception):
    """One trial failed as trials may; its reason is in the study, which goes on."""


@dataclass(frozen=True)
class _Task:
    """What a worker needs. It crosses into other processes."""

    recipe: Recipe
    prepared: Prepared
    folder: Path
    cache: Path
    threads: int


def tune(
    recipe: Recipe,
    folder: Path | None = None,
    *,
    trials: int | None = None,
    jobs: int = 1,
    cache: Path | None = None,
    console: Console | None = None,
) -> Tuned:
    """Run the trials that are still missing, and write the best one's recipe and the report.

    Without `folder` the study lives in `runs/<model>/tune-<key>`, so that the same recipe over the same data finds it
    again; only the number of trials may change. Raises RecipeInvalid before any work when the space makes no sense,
    TrainingError when every trial failed or a worker died, and whatever fetching and preparing raise.
    """
    section = recipe.tune
    check_space(recipe, jobs)
    no_telemetry()
    console = console or Console(stderr=True, highlight=False)
    cache = cache or cache_dir(os.environ)
    with quiet(), progress_on(console) as progress:
        line = Line(recipe, cache, console, progress)
        _, prepared = line.fetch_and_prepare()
        folder = folder or Path("runs") / recipe.name / f"tune-{_study_key(recipe, prepared)[:16]}"
        try:
            with only_user(folder), line.timed("tune") as said:
                task = _Task(recipe, prepared, folder, cache, max(1, torch.get_num_threads() // jobs))
                study = open_study(task)
                wanted = min(trials or section.trials, _cells(recipe))
                _take_up(study, recipe, wanted)
                _run_all(task, study, wanted, jobs, progress)
                tuned = _tuned(study, recipe, folder)
                said.append(f"{len(tuned.trials)} trials, best {section.objective} {tuned.best.quality:.4f}")
        except OSError as error:
            raise TrainingError(f"{error.filename or folder}: {error.strerror or error}") from error
    return tuned


# --- the space -------------------------------------------------------------------------------------------------


def space_of(recipe: Recipe) -> dict[str, Search]:
    """Dotted field name to what it may be."""
    named = {
        f"{section}.{field}": search
        for section, fields in recipe.tune.space.items()
        for field, search in fields.items()
    }
    return named or dict(DEFAULT_SPACE)


def check_space(recipe: Recipe, jobs: int = 1) -> None:
    """Refuse a space with a value that no recipe may hold. Raises RecipeInvalid naming the field."""
    if recipe.tune.latency and jobs > 1:
        raise RecipeInvalid("tune.latency: needs one job, for a trial that trains beside it would be measured too")
    for name, search in space_of(recipe).items():
        if name in _NOT_TUNED:
            raise RecipeInvalid(f"tune.space.{name}: is not for tuning")
        if recipe.tune.sampler == "grid" and not _finite(search):
            raise RecipeInvalid(f"tune.space.{name}: a grid needs choices, or a step between low and high")
        for value in search.choices or (search.low, search.high):
            with_values(recipe, {name: value})  # type: ignore[dict-item]


def with_values(recipe: Recipe, values: Values) -> Recipe:
    """The recipe with other values in it. Raises RecipeInvalid naming the field."""
    changed = recipe.model_dump(exclude_unset=True)
    for name, value in values.items():
        section, _, field = name.partition(".")
        changed.setdefault(section, {})[field] = value
    return parse_recipe(changed, origin=f"{recipe.name} in a trial")


def grid_values(search: Search) -> list[Value]:
    """Every value of a finite search, in order."""
    if search.choices is not None:
        return list(search.choices)
    low, high, step = search.low or 0, search.high or 0, search.step or 1
    # Rounded, for 3 * 0.1 is not 0.3.
    return [round(low + step * number, 12) for number in range(math.floor((high - low) / step + 1e-9) + 1)]


def _finite(search: Search) -> bool:
    whole = isinstance(search.low, int) and isinstance(search.high, int)
    return search.choices is not None or search.step is not None or (whole and not search.log)


def _grid(recipe: Recipe) -> Iterator[dict[str, Value]]:
    space = space_of(recipe)
    for cell in itertools.product(*(grid_values(search) for search in space.values())):
        yield dict(zip(space, cell, strict=True))


def _cells(recipe: Recipe) -> int | float:
    """How many trials there can be."""
    if recipe.tune.sampler != "grid":
        return math.inf
    return math.prod(len(grid_values(search)) for search in space_of(recipe).values())


def _suggest(trial: optuna.Trial, space: Mapping[str, Search]) -> dict[str, Value]:
    """The next values. A whole low and high make whole numbers."""
    values: dict[str, Value] = {}
    for name, search in space.items():
        low, high, step = search.low or 0, search.high or 0, search.step
        if search.choices is not None:
            values[name] = _chosen(trial.suggest_categorical(name, search.choices))
        elif isinstance(low, int) and isinstance(high, int) and not isinstance(step, float):
            values[name] = trial.suggest_int(
                name, low, high - (high - low) % (step or 1), step=step or 1, log=search.log
            )
        else:
            last = high if step is None else grid_values(search)[-1]
            values[name] = trial.suggest_float(name, float(low), float(last), step=step, log=search.log)
    return values


def _chosen(value: Value | None) -> Value:
    """Optuna allows None among its choices; a recipe does not."""
    if value is None:
        raise TypeError("a choice is None")
    return value


# --- the study -------------------------------------------------------------------------------------------------


def _study_key(recipe: Recipe, prepared: Prepared) -> str:
    return key_of(run_key(recipe, prepared), recipe.tune.model_dump(mode="json", exclude={"trials"}))


class OneTakesIt(optuna.storages.RDBStorage):
    """SQLite locks no row that is read for an update, so that two workers could take up the same waiting trial."""

    def __init__(self, database: Path) -> None:
        super().__init__(f"sqlite:///{database}", engine_kwargs={"connect_args": {"timeout": 60}})
        self._taking = FileLock(database.with_suffix(".lock"))

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """False where another worker was first."""
        with self._taking:
            return super().set_trial_state_values(trial_id, state, values)


def open_study(task: _Task, worker: int = 0) -> optuna.Study:
    """The study in its folder, made on the first call. Every worker draws from a seed of its own."""
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    section = task.recipe.tune
    task.folder.mkdir(parents=True, exist_ok=True)
    storage = OneTakesIt(task.folder.resolve() / "study.db")
    directions = [_direction(section.objective)]
    if section.latency:
        directions.append("minimize")
    study = optuna.create_study(
        study_name=task.recipe.name,
        storage=storage,
        directions=directions,
        load_if_exists=True,
        pruner=_pruner(section),
    )
    study.sampler = _sampler(section, len(study.trials), worker)
    return study


def _direction(objective: str) -> Literal["maximize", "minimize"]:
    return "maximize" if objective == "accuracy" else "minimize"


def _pruner(section: TuneSection) -> optuna.pruners.BasePruner:
    if not section.prune:
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=section.warmup_trials)


def _sampler(section: TuneSection, done: int, worker: int) -> optuna.samplers.BaseSampler:
    """A sampler that proposes neither what a parallel worker does nor what it did before it was killed."""
    seed = int(np.random.SeedSequence([section.seed, done, worker]).generate_state(1)[0])
    if section.sampler == "tpe":
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=section.warmup_trials)
    return optuna.samplers.RandomSampler(seed=seed)


def _take_up(study: optuna.Study, recipe: Recipe, wanted: int | float) -> None:
    """Trials that were interrupted are run again, with the values they had; a grid is laid out."""
    trials = study.get_trials(deepcopy=False)
    taken_up = {trial.user_attrs.get(_AGAIN) for trial in trials}
    for trial in trials:
        if trial.state is TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
        elif trial.state is not TrialState.FAIL or _REASON in trial.user_attrs:
            continue
        if trial.number not in taken_up:
            study.enqueue_trial(trial.params, user_attrs={_AGAIN: trial.number})
    if recipe.tune.sampler == "grid":
        for cell in itertools.islice(_grid(recipe), int(wanted)):
            study.enqueue_trial(cell, skip_if_exists=True)


def finished(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Trials that are over for good. One that failed without a reason was interrupted, and another does its work."""
    return [
        trial
        for trial in trials
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        or (trial.state is TrialState.FAIL and _REASON in trial.user_attrs)
    ]


def _run_all(task: _Task, study: optuna.Study, wanted: int | float, jobs: int, progress: Progress) -> None:
    """Everything that is missing, in this process or in `jobs` others."""
    done = len(finished(study.trials))
    missing = max(0, int(wanted) - done)
    bar = progress.add_task("Tuning", total=int(wanted), completed=done)
    if jobs == 1 or missing < 2:
        _work(task, missing, 0, lambda: progress.advance(bar))
    else:
        _run_workers(
            task,
            _shares(missing, jobs),
            follow=lambda: _follow(study, progress, bar),
            stopped=lambda: str(study.user_attrs.get(_STOPPED, "")),
        )
    progress.remove_task(bar)


def _follow(study: optuna.Study, progress: Progress, bar: Any) -> None:
    progress.update(bar, completed=len(finished(study.get_trials(deepcopy=False))))


def _shares(missing: int, jobs: int) -> list[int]:
    jobs = min(jobs, missing)
    return [missing // jobs + (worker < missing % jobs) for worker in range(jobs)]


def _run_workers(task: _Task, shares: Sequence[int], follow: Callable[[], None], stopped: Callable[[], str]) -> None:
    """One process for each share. Raises TrainingError when one of them dies."""
    fresh = multiprocessing.get_context("spawn")  # a fork of a process with torch's threads may hang
    workers: list[BaseProcess] = [
        fresh.Process(target=_work_apart, args=(task, share, worker), daemon=True)
        for worker, share in enumerate(shares, 1)
    ]
    try:
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            time.sleep(_POLL_SECONDS)
            follow()
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
    if any(worker.exitcode for worker in workers):
        why = stopped() or "a process of the study died (out of memory?)"
        raise TrainingError(f"{why}; the same command goes on where it was")


def _work_apart(task: _Task, count: int, worker: int) -> None:
    """`_work` in a process of its own: what went wrong is left in the study for the parent to say."""
    try:
        _work(task, count, worker)
    except TrainingError as error:
        open_study(task).set_user_attr(_STOPPED, error.message)
        raise SystemExit(1) from error


def _work(task: _Task, count: int, worker: int, advance: Callable[[], None] = lambda: None) -> None:
    """Run `count` trials. One that fails as training can fail is noted with its reason, and the study goes on."""
    if not count:
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(task.threads)
    parent = os.getppid() if worker else None
    try:
        with quiet():
            open_study(task, worker).optimize(
                lambda trial: _objective(task, trial, parent),
                n_trials=count,
                catch=(_TrialFailed,),
                callbacks=[lambda *_: advance()],
            )
    finally:
        torch.set_num_threads(threads)


# --- one trial -------------------------------------------------------------------------------------------------


def _objective(task: _Task, trial: optuna.Trial, parent: int | None) -> float | tuple[float, float]:
    """One trial in a folder of its own, which is gone when the trial is over.

    Whatever came of it is in the study. A process that is killed or interrupted leaves its checkpoints, to go on from.
    """
    recipe = with_values(task.recipe, _suggest(trial, space_of(task.recipe)))
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
            trial.set_user_attr(_REASON, "another trial was at the same values")
            raise _TrialFailed from error
        if isinstance(cause, OSError):
            raise  # the disk, not the values: every other trial would meet it too
        shutil.rmtree(home, ignore_errors=True)
        trial.set_user_attr(_REASON, error.message)
        raise _TrialFailed from error
    shutil.rmtree(home, ignore_errors=True)
    return measured


def _measured(
    task: _Task, trial: optuna.Trial, recipe: Recipe, home: Path, parent: int | None
) -> float | tuple[float, float]:
    """Fine-tune; the quality on the validation split, and the latency where it counts."""
    section = task.recipe.tune
    with Progress(disable=True) as bars:
        encoder = fetch_encoder(recipe.encoder, task.cache, bars)
        watch = _Watch(trial, section, parent)
        tuned = fine_tune(recipe, task.prepared, encoder, home / "fine-tune", bars, [watch])
    curve = [(point.epoch, _value(point, section.objective)) for point in tuned.curve if point.kind == "validation"]
    trial.set_user_attr("curve", curve)
    quality = _quality(tuned, section.objective)
    return (quality, latency_seconds(tuned, task.prepared.validation.texts)) if section.latency else quality


class _Watch(transformers.TrainerCallback):  # type: ignore[misc]
    """Reports every pass over the validation split, and ends a trial that the pruner gives up or nobody waits for."""

    def __init__(self, trial: optuna.Trial, section: TuneSection, parent: int | None) -> None:
        self._trial = trial
        self._section = section
        self._parent = parent
        self._curve: list[tuple[float, float]] = []

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Mapping[str, float], **_: Any) -> None:
        """Raises TrialPruned."""
        value = float(metrics[f"eval_{self._section.objective}"])
        self._curve.append((round(float(state.epoch), 3), value))
        self._trial.set_user_attr("curve", self._curve)
        if self._section.latency:
            return  # Optuna compares trials on their way by one objective only
        self._trial.report(value, round(state.epoch * _STEPS_PER_EPOCH))
        if self._trial.should_prune():
            raise optuna.TrialPruned

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A worker whose study was killed ends too, and leaves its checkpoints."""
        if self._parent is not None and os.getppid() != self._parent:
            os._exit(1)


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


# --- what came of it -------------------------------------------------------------------------------------------


def _tuned(study: optuna.Study, recipe: Recipe, folder: Path) -> Tuned:
    """The finished study, its recipes and its report written. Raises TrainingError when no trial ended well."""
    over = finished(study.trials)
    done = [trial for trial in over if trial.state is TrialState.COMPLETE]
    if not done:
        reasons = [str(trial.user_attrs[_REASON]) for trial in over if _REASON in trial.user_attrs]
        raise TrainingError(f"no trial came to an end; the first says: {reasons[0] if reasons else 'pruned'}")
    front = sorted(trial.number for trial in (study.best_trials if recipe.tune.latency else [study.best_trial]))
    results = {trial.number: _result(trial) for trial in over}
    sign = 1 if _direction(recipe.tune.objective) == "maximize" else -1
    best = max((results[number] for number in front), key=lambda result: sign * (result.quality or 0.0))
    for number in front:
        _write_recipe(
            recipe, results[number], folder / ("best.toml" if number == best.number else f"trial-{number}.toml")
        )
    tuned = Tuned(
        folder=folder,
        objective=recipe.tune.objective,
        sampler=recipe.tune.sampler,
        trials=tuple(results.values()),
        front=tuple(front),
        best=best,
        recipe=folder / "best.toml",
    )
    write_atomically(folder / "report.html", render_study(recipe, tuned).encode())
    return tuned


def _result(trial: FrozenTrial) -> TrialResult:
    values = trial.values or []
    took = trial.duration
    return TrialResult(
        number=trial.number,
        state=trial.state.name.lower(),
        values=dict(trial.params),
        quality=values[0] if values else None,
        latency_seconds=values[1] if len(values) > 1 else None,
        seconds=took.total_seconds() if took else 0.0,
        curve=tuple((float(epoch), float(value)) for epoch, value in trial.user_attrs.get("curve", ())),
        note=str(trial.user_attrs.get(_REASON, "")),
    )


def _write_recipe(recipe: Recipe, result: TrialResult, path: Path) -> None:
    """The recipe of one trial, with paths that start at its own folder."""
    changed = with_values(recipe, result.values)
    values = changed.model_dump(mode="json", exclude_unset=True, exclude_none=True, exclude={"tune"})
    data = with_paths(changed.data, lambda table: Path(os.path.relpath(table, path.parent)))
    values["data"] = data.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    if changed.encoder.source == "folder":
        values["encoder"]["name"] = os.path.relpath(changed.encoder.name, path.parent)
    said = f"# Trial {result.number} of `slipway tune`: {recipe.tune.objective} {result.quality:.4f} in validation."
    write_atomically(path, f"{said}\n{tomli_w.dumps(values)}".encode())
