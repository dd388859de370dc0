"""training/runs.py: what finished runs came to, listed and compared without any tracker."""

from pathlib import Path

import pytest

from tests.training.kept_runs import keep_some
from training.errors import TrainingError
from training.runs import differences, find_runs, list_runs


@pytest.fixture
def root(tmp_path: Path) -> Path:
    keep_some(tmp_path)
    return tmp_path


def test_runs_are_listed_newest_first_and_broken_ones_passed_over(root: Path) -> None:
    assert [run.name for run in list_runs(root)] == ["tiny/aaaa2222", "tiny/bbbb3333", "tiny/aaaa1111"]
    assert list_runs(root / "nowhere") == []


def test_only_what_differs_is_compared(root: Path) -> None:
    chosen = find_runs(list_runs(root), ["aaaa1", "tiny/aaaa2222"])
    assert differences(chosen) == {
        "training.learning_rate": ["0.001", "0.002"],
        "weights": ["aaaa1111aaaa1111", "aaaa2222aaaa2222"],
    }


@pytest.mark.parametrize(("name", "said"), [("zzz", "is no run"), ("aaaa", "is more than one run"), ("", "is no run")])
def test_a_run_that_is_not_meant_clearly_is_refused(root: Path, name: str, said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        find_runs(list_runs(root), [name])
