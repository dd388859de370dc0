"""cli/evaluate.py: which options go together. tests/training/test_evaluation.py measures."""

import pytest

from tests.cli.command import Capture, refusal_of


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evaluate", "a", "--baseline"], "--baseline goes with --folds"),
        (["evaluate", "a", "--run-dir", "x"], "--run-dir goes with --folds"),
        (["evaluate", "a", "--folds", "5", "--data", "x.csv"], "--data is for a published model"),
        (["evaluate", "a", "--folds", "5", "--against-variant", "int8"], "--against-variant is for a published model"),
        (["evaluate", "sentiment", "--folds", "many"], "--folds many: must be a number from 2 to 20, or sources"),
        (["evaluate", "sentiment", "--folds", "5", "--against", "absent"], "absent: No such file"),
        (["evaluate", "absent-recipe", "--folds", "5"], "absent-recipe: No such file"),
        (["evaluate", "a:latest"], "NAME@ALIAS"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(capsys: Capture, arguments: list[str], said: str) -> None:
    assert said in refusal_of(capsys, *arguments)
