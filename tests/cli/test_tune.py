"""cli/tune.py: how a study is shown. tests/training/test_tune.py runs one."""

from dataclasses import replace
from pathlib import Path

from cli.output import open_console
from cli.tune import trials_table
from tests.cli.command import Capture, refusal_of
from training.tune_report import TrialResult, Tuned

FIRST = TrialResult(0, "complete", {"training.learning_rate": 2e-5, "training.epochs": 3}, 0.8, 0.004, 12.4, (), "")
FAILED = TrialResult(1, "failed", {"training.learning_rate": 0.5}, None, None, 0.6, (), "the loss is not a number")


def shown(capsys: Capture, *trials: TrialResult) -> list[list[str]]:
    found = Tuned(Path("study"), "accuracy", "random", trials, (0,), trials[0], Path("study/best.toml"))
    open_console().print(trials_table(found))
    return [line.split() for line in capsys.readouterr().out.splitlines() if line.strip(" \u2500")]


def test_every_trial_is_a_row_and_the_best_has_a_star(capsys: Capture) -> None:
    assert shown(capsys, FIRST, FAILED) == [
        ["trial", "state", "accuracy", "ms", "a", "text", "seconds", "learning_rate", "epochs"],
        ["*", "0", "complete", "0.8000", "4.0", "12", "2e-05", "3"],
        ["1", "failed", "1", "0.5"],
    ]


def test_a_mean_over_folds_comes_with_its_interval(capsys: Capture) -> None:
    assert "0.8000 (0.790 to 0.810)" in " ".join(shown(capsys, replace(FIRST, interval=(0.79, 0.81)))[1])


def test_without_a_latency_there_is_no_column_for_one(capsys: Capture) -> None:
    assert "ms" not in shown(capsys, FAILED)[0]


def test_a_study_has_a_trial_at_least(capsys: Capture) -> None:
    assert "--trials" in refusal_of(capsys, "tune", "sentiment", "--trials", 0)


def test_a_recipe_that_is_not_there_is_named(capsys: Capture) -> None:
    assert "gone.toml" in refusal_of(capsys, "tune", "gone.toml")
