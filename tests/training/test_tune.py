"""training/tune.py: real studies of the tiny encoder, pruned, killed, taken up, in parallel and with two objectives."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import pytest
from rich.console import Console

from cli.app import main
from tests.training import tiny
from training.errors import RecipeInvalid, TrainingError
from training.pipeline import ROOT, public_recipe
from training.recipe import Recipe, Search, load_recipe
from training.tune import OneTakesIt, check_space, grid_values, space_of, tune, with_values
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


def searching(home: Path, space: dict[str, Any], **section: Any) -> Recipe:
    """The recipe with a `[tune]` section."""
    recipe = load_recipe(home / "recipe.toml")
    values = recipe.model_dump(exclude_unset=True) | {"tune": {"space": {"training": space}, **section}}
    return Recipe.model_validate(values)


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
from training import tune

plain = tune._Watch.on_evaluate
def killer(self, args, state, control, metrics, **rest):
    plain(self, args, state, control, metrics, **rest)
    if self._trial.number == 1:
        self.dying = True
def after_save(self, args, state, control, **_):
    if getattr(self, "dying", False) and (Path(args.output_dir) / f"checkpoint-{state.global_step}").is_dir():
        os.kill(os.getpid(), signal.SIGKILL)
tune._Watch.on_evaluate = killer
tune._Watch.on_save = after_save
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


def test_a_second_run_of_the_same_study_is_refused(grid: Tuned, home: Path) -> None:
    from training.steps import only_user

    with only_user(grid.folder), pytest.raises(TrainingError, match="another run is using"):
        run(home, searching(home, RATES, sampler="grid"), "grid")


@pytest.mark.parametrize(
    ("space", "section", "sentence"),
    [
        ({"lerning_rate": {"choices": [1]}}, {}, r"training\.lerning_rate: unknown key"),
        ({"learning_rate": {"low": 0.1, "high": 2.0}}, {}, r"training\.learning_rate: .*less than or equal to 1"),
        ({"optimizer": {"choices": ["adamw", "adam"]}}, {}, r"training\.optimizer: .*'adamw'"),
        ({"seed": {"choices": [1, 2]}}, {}, r"tune\.space\.training\.seed: is not for tuning"),
        (
            {"dropout": {"low": 0.0, "high": 0.3}},
            {"sampler": "grid"},
            r"tune\.space\.training\.dropout: a grid needs choices, or a step",
        ),
    ],
)
def test_a_space_that_makes_no_sense_is_refused_by_field(
    home: Path, space: dict[str, Any], section: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RecipeInvalid, match=sentence):
        check_space(searching(home, space, **section))


@pytest.mark.parametrize(
    ("search", "sentence"),
    [
        ({}, "either choices, or low and high"),
        ({"choices": [1], "low": 1}, "either choices, or low and high"),
        ({"low": 1}, "a high that is not smaller"),
        ({"low": 2, "high": 1}, "a high that is not smaller"),
        ({"low": 0, "high": 1, "log": True}, "log needs a low above 0"),
        ({"low": 1, "high": 2, "steps": 1}, "unknown key"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused_when_it_is_read(search: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeInvalid, match=rf"tune\.space\.training\.batch_size.*{sentence}"):
        tiny.recipe(tune={"space": {"training": {"batch_size": search}}})


def test_latency_is_not_measured_beside_other_trials(home: Path) -> None:
    with pytest.raises(RecipeInvalid, match=r"tune\.latency: needs one job"):
        check_space(searching(home, RATES, latency=True), jobs=2)


def test_steps_end_where_the_grid_ends() -> None:
    assert grid_values(Search(low=0.0, high=0.3, step=0.1)) == [0.0, 0.1, 0.2, 0.3]
    assert grid_values(Search(low=1, high=6, step=2)) == [1, 3, 5]
    assert grid_values(Search(choices=("a", "b"))) == ["a", "b"]


def test_the_default_space_fits_the_bundled_recipe() -> None:
    recipe = load_recipe("sentiment")
    check_space(recipe)
    assert "training.learning_rate" in space_of(recipe)


def test_encoders_that_are_folders_start_at_the_recipe(home: Path) -> None:
    path = home / "encoders.toml"
    text = (home / "recipe.toml").read_text()
    path.write_text(text + '[tune.space.encoder]\nname = { choices = ["encoder", "other"] }\n')
    choices = space_of(load_recipe(path))["encoder.name"].choices
    assert choices == (str(home / "encoder"), str(home / "other"))


def test_a_study_is_nobody_elses_business_in_the_manifest(home: Path) -> None:
    assert "tune" not in public_recipe(searching(home, RATES))
    changed = with_values(searching(home, RATES), {"training.dropout": 0.2})
    assert public_recipe(changed)["training"]["dropout"] == 0.2


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


def test_every_worker_draws_from_a_seed_of_its_own(home: Path, tmp_path: Path) -> None:
    from training.tune import _sampler

    section = searching(home, RATES, sampler="random").tune
    drawn = set()
    for done, worker in ((0, 0), (0, 1), (0, 2), (5, 1)):
        study = optuna.create_study(sampler=_sampler(section, done, worker))
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
