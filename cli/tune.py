"""`slipway tune`: better values of a recipe's fields."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import needs
from cli.options import AsJson
from cli.output import make_table, open_console, talk, write_json

if TYPE_CHECKING:
    from training.tune_report import Tuned


def tune(
    recipe: Annotated[str, typer.Argument(help="A bundled recipe's name, or a TOML file.", show_default=False)],
    trials: Annotated[
        int | None, typer.Option(min=1, help="Trials in all. Default: tune.trials of the recipe.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Trials at once, each in a process of its own.")] = 1,
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder of the study; one found there goes on. Default: below runs.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Look for better values of a recipe's fields; the best trial becomes a recipe file.

    The recipe's `[tune]` section says what to search and how. The same command goes on with a study that was killed,
    and a greater --trials adds to one that is over.
    """
    with needs("tune", "train"):
        from training.recipe import load_recipe
        from training.tune import tune as run

        found = run(load_recipe(recipe), run_dir, trials=trials, jobs=jobs)
    if as_json:
        write_json(json.loads(json.dumps(asdict(found), default=str)), indent=2)
        return 0
    open_console().print(trials_table(found))
    open_console().print(f"{found.recipe}", markup=False, soft_wrap=True)
    talk(f"best: trial {found.best.number}; slipway train {found.recipe}; plots in {found.folder / 'report.html'}")
    return 0


def trials_table(found: "Tuned") -> object:
    """Every trial; the best, and with two objectives those that no other beats, with a star."""
    from training.tune_report import mean_interval, short

    names = list(dict.fromkeys(name for trial in found.trials for name in trial.values))
    timed = any(trial.latency_seconds is not None for trial in found.trials)
    rows = []
    for trial in found.trials:
        quality = "" if trial.quality is None else f"{trial.quality:.4f}{mean_interval(trial)}"
        latency = "" if trial.latency_seconds is None else f"{trial.latency_seconds * 1e3:.1f}"
        values = [short(value) for value in trial.values.values()]
        star = "* " if trial.number in found.front else ""
        rows.append(
            [f"{star}{trial.number}", trial.state, quality, *([latency] * timed), f"{trial.seconds:.0f}", *values]
        )
    columns = ["trial", "state", found.objective, *(["ms a text"] * timed), "seconds"]
    return make_table([*columns, *(name.rpartition(".")[2] for name in names)], rows)
