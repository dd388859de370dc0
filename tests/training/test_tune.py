"""training/tune.py: real studies of the tiny encoder, pruned, killed, taken up, in parallel and with two objectives."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from rich.console import Console
from rich.progress import Progress

from cli.app import main
from tests.training import tiny
from tests.training.full_disk import full_disk
from tests.training.tiny import searching
from training.data import read_table
from training.errors import DataInvalid, TrainingError
from training.evaluation import evaluate_recipe
from training.keys import run_key
from training.prepare import prepare
from training.provenance import ROOT, public_recipe
from training.recipe import ChosenSection, Recipe, load_recipe, parse_recipe
from training.space import with_values
from training.tune import tune
from training.tune_report import Tuned

RATES = {"learning_rate": {"choices": [5e-3, 2e-3, 1e-3]}}
WIDE = {"learning_rate": {"low": 1e-3, "high": 6e-3}}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe with its table and encoder: two short epochs."""
    folder = tmp_path_factory.mktemp("tune")
    tiny.project(folder)
    recipe = folder / "recipe.toml"
    recipe.write_text(
        recipe.read_text().replace("epochs = 8", "epochs = 2").replace("task =", "max_rows = 150\ntask =")
    )
    return folder


def run(home: Path, recipe: Recipe, folder: str, **options: Any) -> Tuned:
    return tune(recipe, home / folder, cache=home / "cache", console=Console(file=io.StringIO()), **options)


@pytest.fixture(scope="module")
def grid(home: Path) -> Tuned:
    recipe = searching(home, RATES | {"label_smoothing": {"choices": [0.0]}}, sampler="grid")
    return run(home, recipe, "grid", trials=2)


def test_a_grid_tries_its_cells_in_order_and_no_more_than_asked(grid: Tuned) -> None:
    assert [trial.values["training.learning_rate"] for trial in grid.trials] == [5e-3, 2e-3]
    assert {trial.state for trial in grid.trials} == {"complete"}
    assert all(len(trial.curve) == 2 for trial in grid.trials)


def test_the_best_trial_is_a_recipe_that_can_be_trained(grid: Tuned, home: Path) -> None:
    qualities = [trial.quality or 0 for trial in grid.trials]
    assert grid.best.quality == max(qualities)
    assert grid.front == (grid.best.number,)
    recipe = load_recipe(grid.recipe)
    assert recipe.training.learning_rate == grid.best.values["training.learning_rate"]
    assert recipe.data.path.resolve() == (home / "reviews.csv").resolve()  # type: ignore[union-attr]
    assert Path(recipe.encoder.name).resolve() == (home / "encoder").resolve()
    assert "tune" not in recipe.model_fields_set
    assert recipe.chosen == ChosenSection(
        trial=grid.best.number,
        trials=2,
        values=grid.best.values,
        sampler="grid",
        objective="accuracy",
        quality=grid.best.quality,
    )


def test_the_best_trial_finds_the_files_elsewhere_too(home: Path) -> None:
    table = {"source": "file", "path": str(home / "reviews.csv"), "max_rows": 50}
    recipe = searching(home, {"learning_rate": {"choices": [5e-3]}}, sampler="grid")
    recipe = parse_recipe(recipe.model_dump(exclude_unset=True) | {"elsewhere": [table]}, origin="a test")
    found = load_recipe(run(home, recipe, "elsewhere").recipe)
    assert found.elsewhere[0].path.resolve() == (home / "reviews.csv").resolve()  # type: ignore[union-attr]


def test_nothing_of_a_trial_that_is_over_stays_but_its_figures(grid: Tuned) -> None:
    assert {path.name for path in grid.folder.iterdir()} - {".lock", "trials"} == {
        "study.db",
        "study.lock",
        "best.toml",
        "report.html",
    }
    assert list((grid.folder / "trials").iterdir()) == []


def test_a_study_that_is_over_runs_nothing_and_can_be_extended(grid: Tuned, home: Path) -> None:
    recipe = searching(home, RATES | {"label_smoothing": {"choices": [0.0]}}, sampler="grid")
    assert run(home, recipe, "grid", trials=2).trials == grid.trials
    more = run(home, recipe, "grid", trials=50)
    assert [trial.values["training.learning_rate"] for trial in more.trials] == [5e-3, 2e-3, 1e-3]
    assert more.trials[:2] == grid.trials


def test_a_bad_trial_is_pruned_and_a_broken_one_is_noted(home: Path) -> None:
    space = {"learning_rate": {"choices": [5e-3, 1e-7]}, "frozen_layers": {"choices": [0, 9]}}
    recipe = searching(home, space, sampler="grid", objective="log_loss", warmup_trials=1)
    found = run(home, recipe, "prune")
    assert [trial.state for trial in found.trials] == ["complete", "fail", "pruned", "fail"]
    assert "training.frozen_layers: 9, but the encoder has 2" in found.trials[1].note
    assert len(found.trials[2].curve) == 1
    assert found.best.number == 0


def test_every_trial_that_is_over_has_a_line(home: Path) -> None:
    space = {"learning_rate": {"choices": [5e-3, 1e-7]}, "frozen_layers": {"choices": [0, 9]}}
    recipe = searching(home, space, sampler="grid", objective="log_loss", warmup_trials=1)
    for jobs in (1, 2):
        said = io.StringIO()
        found = tune(
            recipe, home / f"told-{jobs}", jobs=jobs, cache=home / "cache", console=Console(file=said, width=300)
        )
        lines = sorted(line for line in said.getvalue().splitlines() if line.startswith("✓ trial"))
        states = [trial.state for trial in found.trials]
        assert len(lines) == len(states) == 4
        for state, line in zip(states, lines, strict=True):
            assert ({"complete": ": log_loss ", "pruned": ": pruned with"}.get(state) or ": fail: training.f") in line
        assert states.count("fail") == 2


def test_tpe_proposes_within_the_space(home: Path) -> None:
    space = {
        "learning_rate": {"low": 1e-3, "high": 6e-3, "log": True},
        "batch_size": {"low": 16, "high": 40, "step": 8},
    }
    found = run(home, searching(home, space, warmup_trials=1, prune=False), "tpe", trials=2)
    for trial in found.trials:
        assert 1e-3 <= float(trial.values["training.learning_rate"]) <= 6e-3
        assert trial.values["training.batch_size"] in (16, 24, 32, 40)
    assert found.trials[0].values != found.trials[1].values


def test_a_trial_over_folds_has_the_mean_that_evaluate_finds(home: Path) -> None:
    space = {"epochs": {"choices": [6.0, 1.0]}, "learning_rate": {"choices": [5e-3]}}
    recipe = searching(home, space, sampler="grid", objective="log_loss", folds=3, warmup_trials=1)
    found = run(home, recipe, "folds")
    assert [trial.state for trial in found.trials] == ["complete", "pruned"]
    assert [done for done, _ in found.trials[0].curve] == [1, 2, 3]
    assert len(found.trials[1].curve) < 3
    assert found.best.quality == found.trials[0].curve[-1][1]
    low, high = found.best.interval or (1, 0)
    assert low <= found.best.quality <= high
    assert "in the mean of 3 folds" in found.recipe.read_text()
    assert "mean of 3 folds" in (found.folder / "report.html").read_text()
    console = Console(file=io.StringIO())
    alone = evaluate_recipe(str(found.recipe), 3, console, run_dir=home / "alone").found.mean["log_loss"]
    assert (alone.value, alone.low, alone.high) == (found.best.quality, low, high)


def test_folds_that_cannot_be_are_said_before_any_trial(home: Path) -> None:
    recipe = searching(home, RATES, sampler="grid", folds=20)
    with pytest.raises(DataInvalid, match=r"fold \d+ of 20: its \d+ held-out rows hold no row labelled"):
        run(home, recipe, "too-many")
    assert not (home / "too-many").exists()


def test_quality_against_latency_has_a_front(home: Path) -> None:
    recipe = searching(home, {"encoder_layers": {"low": 1, "high": 2}}, sampler="grid", latency=True)
    found = run(home, recipe, "latency")
    assert all((trial.latency_seconds or 0) > 0 for trial in found.trials)
    assert found.best.number in found.front
    written = {path.name for path in found.folder.glob("*.toml")}
    assert written == {"best.toml"} | {f"trial-{number}.toml" for number in found.front if number != found.best.number}
    assert "Quality against latency" in (found.folder / "report.html").read_text()


_KILLED = """
import os, signal, sys
from pathlib import Path
from tests.training.test_tune import WIDE, run, searching
from training import trial

plain = trial.Watch.on_evaluate
def killer(self, args, state, control, metrics, **rest):
    plain(self, args, state, control, metrics, **rest)
    if self._trial.number == 1:
        self.dying = True
def after_save(self, args, state, control, **_):
    if getattr(self, "dying", False) and (Path(args.output_dir) / f"checkpoint-{state.global_step}").is_dir():
        os.kill(os.getpid(), signal.SIGKILL)
trial.Watch.on_evaluate = killer
trial.Watch.on_save = after_save
home = Path(sys.argv[1])
run(home, searching(home, WIDE, sampler="random"), "killed", trials=3)
"""


def test_a_study_that_was_killed_goes_on_with_the_values_it_was_at_in_parallel(home: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", _KILLED, home], cwd=ROOT, env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    recipe = searching(home, WIDE, sampler="random")
    left = _trials_in(home / "killed")
    assert [trial.state.name for trial in left] == ["COMPLETE", "RUNNING"]
    kept = list((home / "killed" / "trials").iterdir())
    assert len(kept) == 1
    assert list(kept[0].glob("fine-tune/checkpoint-*")), "the trial left its checkpoint"
    found = run(home, recipe, "killed", trials=3, jobs=2)
    assert [trial.number for trial in found.trials] == [0, 2, 3]
    assert found.trials[0].quality == left[0].value
    assert found.trials[1].values == left[1].params
    assert {trial.state for trial in found.trials} == {"complete"}


def _trials_in(folder: Path) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}")
    return optuna.load_study(study_name="tiny", storage=storage).trials


def test_a_study_without_one_good_trial_says_why(home: Path) -> None:
    recipe = searching(home, {"frozen_layers": {"choices": [7]}}, sampler="grid")
    with pytest.raises(TrainingError, match=r"no trial came to an end; .*frozen_layers: 7, but the encoder has 2"):
        run(home, recipe, "hopeless")


def test_a_full_disk_ends_the_study_and_the_same_command_goes_on(home: Path) -> None:
    recipe = searching(home, RATES, sampler="grid")
    with (
        pytest.raises(TrainingError, match=r"full: cannot be written: .*disk.*full"),
        full_disk(),
    ):
        run(home, recipe, "full", trials=1)
    assert [trial.state for trial in run(home, recipe, "full", trials=1).trials] == ["complete"]


def test_a_second_run_of_the_same_study_is_refused(grid: Tuned, home: Path) -> None:
    from training.steps import only_user

    with only_user(grid.folder), pytest.raises(TrainingError, match="another run is using"):
        run(home, searching(home, RATES, sampler="grid"), "grid")


def test_a_study_is_nobody_elses_business_in_the_manifest(home: Path) -> None:
    assert "tune" not in public_recipe(searching(home, RATES))
    changed = with_values(searching(home, RATES), {"training.dropout": 0.2})
    assert public_recipe(changed)["training"]["dropout"] == 0.2


def test_which_trial_a_recipe_is_is_in_the_manifest_and_decides_nothing(grid: Tuned, home: Path) -> None:
    recipe = load_recipe(grid.recipe)
    assert recipe.chosen is not None
    assert public_recipe(recipe)["chosen"] == recipe.chosen.model_dump(mode="json")
    assert "chosen" not in public_recipe(load_recipe(home / "recipe.toml")), "an older reader knows no such key"
    with Progress(disable=True) as progress:
        prepared = prepare(read_table(recipe, home / "cache", progress), recipe, progress)
    assert run_key(recipe, prepared) == run_key(recipe.model_copy(update={"chosen": None}), prepared)


@pytest.fixture
def in_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setenv("SLIPWAY_CACHE_DIR", str(home / "cache"))
    monkeypatch.chdir(home)
    return lambda *arguments: main([str(argument) for argument in arguments])


def test_the_command_prints_the_trials_and_the_recipe(
    in_home: Callable[..., int], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = home / "one.toml"
    path.write_text((home / "recipe.toml").read_text() + "[tune.space.training]\nwarmup = { choices = [0.1] }\n")
    assert in_home("tune", path, "--trials", 1, "--run-dir", home / "one") == 0
    out, err = capsys.readouterr()
    assert "complete" in out
    assert out.splitlines()[-1] == str(home / "one" / "best.toml")
    assert "best: trial 0" in err
    assert in_home("tune", path, "--trials", 1, "--run-dir", home / "one", "--json") == 0
    assert json.loads(capsys.readouterr().out)["best"]["values"] == {"training.warmup": 0.1}
    assert in_home("tune", path, "--trials", 0) == 2
    assert in_home("tune", home / "gone.toml") == 2
