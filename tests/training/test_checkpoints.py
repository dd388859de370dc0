"""training/checkpoints.py: which checkpoint a killed run goes on from."""

import logging
from pathlib import Path

import pytest

from training.checkpoints import checkpoints_in, last_complete_checkpoint, mark_complete, step_of


def made(run_dir: Path, *steps: int) -> list[Path]:
    folders = [run_dir / f"checkpoint-{step}" for step in steps]
    for folder in folders:
        folder.mkdir()
    return folders


def test_checkpoints_are_found_in_the_order_of_their_steps(tmp_path: Path) -> None:
    made(tmp_path, 100, 20)
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "model").mkdir()
    assert [step_of(path) for path in checkpoints_in(tmp_path)] == [20, 100]


def test_the_newest_with_a_marker_is_taken_and_half_written_ones_go(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for whole in made(tmp_path, 20, 100):
        mark_complete(whole)
    made(tmp_path, 110)
    with caplog.at_level(logging.WARNING):
        assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-100"
    assert "checkpoint-110 was not finished" in caplog.text
    assert [step_of(path) for path in checkpoints_in(tmp_path)] == [20, 100]


def test_without_a_whole_one_there_is_none(tmp_path: Path) -> None:
    assert last_complete_checkpoint(tmp_path) is None
    made(tmp_path, 5)
    assert last_complete_checkpoint(tmp_path) is None
    assert checkpoints_in(tmp_path) == []
