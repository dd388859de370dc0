"""`slipway tune`: a study over the fields of a recipe with Optuna (Akiba et al. 2019, arXiv:1907.10902).

    <study>/study.db        every trial, by Optuna in SQLite; a study that was killed goes on from here
    <study>/trials/<key>/   a trial on its way: its checkpoints, gone when it is over
    <study>/best.toml       the best trial as a recipe for `slipway train`
    <study>/report.html     every trial, in plots

A trial fine-tunes on the training split and is judged on the validation split, or is cross-validated on both. Nothing
here looks at the test split, so what `slipway train best.toml` measures there is not flattered by the search.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

import optuna
import tomli_w
import torch
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.markup import escape

from artifact.files import cache_dir, write_atomically
from training.disk import disk_errors
from training.errors import TrainingError
from training.fold_plan import FoldPlan
from training.keys import run_key
from training.line import Line
from training.precision import torch_threads
from training.prepare import Prepared
from training.progress import progress_on
from training.quiet import quiet
from training.recipe import ChosenSection, Recipe
from training.sources import no_telemetry
from training.space import cells, check_space, with_values
from training.steps import key_of, only_user
from training.study import CURVE, INTERVAL, REASON, check_study, direction, finished, open_study, take_up
from training.trial import Task, TrialFailed, objective
from training.tune_report import TrialResult, Tuned, render_study, short

_STOPPED: Final = "stopped"
_POLL_SECONDS: Final = 0.5


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
    with quiet(), disk_errors(folder or "the study"), progress_on(console) as progress:
        line = Line(recipe, cache, console, progress)
        _, prepared = line.fetch_and_prepare()
        if section.folds is not None:
            FoldPlan.of(prepared, recipe, section.folds)  # raises now rather than in every trial
        folder = folder or Path("runs") / recipe.name / f"tune-{_study_key(recipe, prepared)[:16]}"
        with only_user(folder), line.timed("tune") as said:
            task = Task(recipe, prepared, folder, cache, max(1, torch.get_num_threads() // jobs))
            study = open_study(recipe, folder)
            check_study(study, _judging_key(recipe, prepared), folder)
            wanted = min(trials or section.trials, cells(recipe))
            take_up(study, recipe, wanted)
            _run_all(task, study, wanted, jobs, line)
            tuned = _tuned(study, recipe, folder)
            said.append(f"{len(tuned.trials)} trials, best {section.objective} {tuned.best.quality:.4f}")
    return tuned


def _study_key(recipe: Recipe, prepared: Prepared) -> str:
    # Without folds as before there were any: studies of then are found again.
    known = {"trials"} if recipe.tune.folds is not None else {"trials", "folds"}
    return key_of(run_key(recipe, prepared), recipe.tune.model_dump(mode="json", exclude=known))


def _judging_key(recipe: Recipe, prepared: Prepared) -> str:
    """What makes two trials comparable."""
    section = recipe.tune
    return key_of(run_key(recipe, prepared), section.objective, section.folds, section.latency)


def _run_all(task: Task, study: optuna.Study, wanted: int | float, jobs: int, line: Line) -> None:
    """Everything that is missing, in this process or in `jobs` others; a line for each trial that is over."""
    told = {trial.number for trial in finished(study.trials)}
    missing = max(0, int(wanted) - len(told))
    bar = line.progress.add_task("Tuning", total=int(wanted), completed=len(told))

    def follow() -> None:
        for trial in finished(study.get_trials(deepcopy=False)):
            if trial.number not in told:
                told.add(trial.number)
                line.say("trial", *_in_words(_result(trial), task.recipe.tune.objective))
        line.progress.update(bar, completed=len(told))

    try:
        if jobs == 1 or missing < 2:
            _work(task, missing, 0, follow)
        else:
            study.set_user_attr(_STOPPED, "")
            _run_workers(
                task,
                _shares(missing, jobs),
                follow=follow,
                stopped=lambda: str(study.user_attrs.get(_STOPPED, "")),
            )
    finally:
        follow()  # also what ended before the study had to stop
        line.progress.remove_task(bar)


def _in_words(result: TrialResult, objective: str) -> tuple[str, float]:
    """What a trial came to, and its seconds."""
    done = result.state == "complete" and result.quality is not None
    came_to = f"{objective} {result.quality:.4f}" if done else ": ".join(filter(None, (result.state, result.note)))
    values = ", ".join(f"{name.rpartition('.')[2]} = {short(value)}" for name, value in result.values.items())
    return escape(f"{result.number}: {came_to} with {values}"), result.seconds


def _shares(missing: int, jobs: int) -> list[int]:
    jobs = min(jobs, missing)
    return [missing // jobs + (worker < missing % jobs) for worker in range(jobs)]


def _run_workers(task: Task, shares: Sequence[int], follow: Callable[[], None], stopped: Callable[[], str]) -> None:
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
        why = stopped() or "a process of the study died (out of memory, or the disk is full?)"
        raise TrainingError(f"{why}; the same command goes on where it was")


def _work_apart(task: Task, count: int, worker: int) -> None:
    """`_work` in a process of its own: what went wrong is left in the study for the parent to say."""
    try:
        with disk_errors(task.folder):
            _work(task, count, worker)
    except TrainingError as error:
        with suppress(Exception):  # where the disk is full, the study may take no more
            open_study(task.recipe, task.folder).set_user_attr(_STOPPED, error.message)
        raise SystemExit(1) from error


def _work(task: Task, count: int, worker: int, follow: Callable[[], None] = lambda: None) -> None:
    """Run `count` trials. One that fails as training can fail is noted with its reason, and the study goes on."""
    if not count:
        return
    parent = os.getppid() if worker else None
    with torch_threads(task.threads), quiet():
        open_study(task.recipe, task.folder, worker).optimize(
            lambda trial: objective(task, trial, parent),
            n_trials=count,
            catch=(TrialFailed,),
            callbacks=[lambda *_: follow()],
        )


def _tuned(study: optuna.Study, recipe: Recipe, folder: Path) -> Tuned:
    """The finished study, its recipes and its report written. Raises TrainingError when no trial ended well."""
    over = finished(study.trials)
    done = [trial for trial in over if trial.state is TrialState.COMPLETE]
    if not done:
        reasons = [str(trial.user_attrs[REASON]) for trial in over if REASON in trial.user_attrs]
        raise TrainingError(f"no trial came to an end; the first says: {reasons[0] if reasons else 'pruned'}")
    front = sorted(trial.number for trial in (study.best_trials if recipe.tune.latency else [study.best_trial]))
    results = {trial.number: _result(trial) for trial in over}
    sign = 1 if direction(recipe.tune.objective) == "maximize" else -1
    best = max((results[number] for number in front), key=lambda result: sign * (result.quality or 0.0))
    for number in front:
        name = "best.toml" if number == best.number else f"trial-{number}.toml"
        _write_recipe(recipe, results[number], len(results), folder / name)
    tuned = Tuned(
        folder=folder,
        objective=recipe.tune.objective,
        sampler=recipe.tune.sampler,
        trials=tuple(results.values()),
        front=tuple(front),
        best=best,
        recipe=folder / "best.toml",
        folds=recipe.tune.folds,
    )
    write_atomically(folder / "report.html", render_study(recipe, tuned).encode())
    return tuned


def _result(trial: FrozenTrial) -> TrialResult:
    values = trial.values or []
    took = trial.duration
    interval = trial.user_attrs.get(INTERVAL)
    return TrialResult(
        number=trial.number,
        state=trial.state.name.lower(),
        values=dict(trial.params),
        quality=values[0] if values else None,
        latency_seconds=values[1] if len(values) > 1 else None,
        seconds=took.total_seconds() if took else 0.0,
        curve=tuple((float(epoch), float(value)) for epoch, value in trial.user_attrs.get(CURVE, ())),
        note=str(trial.user_attrs.get(REASON, "")),
        interval=None if interval is None else (interval[0], interval[1]),
    )


def _write_recipe(recipe: Recipe, result: TrialResult, trials: int, path: Path) -> None:
    """The recipe of one trial, with paths that start at its own folder."""
    changed = with_values(recipe, result.values)
    moved = changed.with_files(lambda table: Path(os.path.relpath(table, path.parent)))
    left_out = {"tune"} if "elsewhere" in changed.model_fields_set else {"tune", "elsewhere"}
    values = moved.model_dump(mode="json", exclude_unset=True, exclude_none=True, exclude=left_out)
    if changed.encoder.source == "folder":
        values["encoder"]["name"] = os.path.relpath(changed.encoder.name, path.parent)
    section = recipe.tune
    chosen = ChosenSection(
        trial=result.number,
        trials=trials,
        values=result.values,
        sampler=section.sampler,
        objective=section.objective,
        quality=result.quality or 0.0,
        folds=section.folds,
    )
    values["chosen"] = chosen.model_dump(mode="json", exclude_none=True)
    said = f"# Trial {result.number} of `slipway tune`: {section.objective} {chosen.quality:.4f} {chosen.judged}."
    write_atomically(path, f"{said}\n{tomli_w.dumps(values)}".encode())
