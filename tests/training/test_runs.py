"""training/runs.py and `slipway runs`: what finished runs came to, listed and compared without any tracker."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import cli
from artifact.manifest import Estimate
from training.errors import TrainingError
from training.runs import RunSummary, differences, find_runs, list_runs, save_summary


def keep(root: Path, key: str, *, day: int = 1, version: int | None = 1, **training: Any) -> None:
    folder = root / "tiny" / key
    folder.mkdir(parents=True)
    recipe = {"name": "tiny", "training": {"learning_rate": 1e-3, "seed": 13} | training}
    summary = RunSummary(
        model="tiny",
        finished=datetime(2026, 1, day, tzinfo=UTC),
        recipe=recipe,
        data_fingerprint="sha256:" + "1" * 64,
        weights_digest=key * 8,
        steps=10,
        seconds=2.0,
        metrics={"accuracy": Estimate(value=0.8, low=0.7, high=0.9)},
        version=version,
    )
    save_summary(folder, summary)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    keep(tmp_path, "aaaa1111")
    keep(tmp_path, "aaaa2222", day=3, version=None, learning_rate=2e-3)
    keep(tmp_path, "bbbb3333", day=2, seed=14)
    (tmp_path / "tiny" / "broken").mkdir()
    (tmp_path / "tiny" / "broken" / "summary.json").write_text("{")
    (tmp_path / "tiny" / "unfinished").mkdir()
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


def test_the_command_lists_compares_and_says_when_there_is_nothing(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["runs", "--root", str(root)]) == 0
    listed = capsys.readouterr().out
    assert "tiny/bbbb3333" in listed
    assert "refused" in listed
    assert "0.800 [0.700, 0.900]" in listed
    assert cli.main(["runs", "aaaa1", "bbbb", "--root", str(root)]) == 0
    compared = capsys.readouterr().out
    assert "training.seed" in compared
    assert "training.learning_rate" not in compared
    assert cli.main(["runs", "aaaa1", "bbbb", "--root", str(root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["differences"]["training.seed"] == ["13", "14"]
    assert cli.main(["runs", "zzz", "--root", str(root)]) == 1
    assert cli.main(["runs", "--root", str(root / "nowhere")]) == 0
    assert "no finished runs" in capsys.readouterr().err
