"""cli/runs.py: runs listed, compared, and none found."""

import json
from pathlib import Path

from tests.cli.command import Capture, slipway
from tests.training.kept_runs import keep_some


def test_the_command_lists_compares_and_says_when_there_is_nothing(tmp_path: Path, capsys: Capture) -> None:
    keep_some(tmp_path)
    assert slipway("runs", "--root", tmp_path) == 0
    listed = capsys.readouterr().out
    assert "tiny/bbbb3333" in listed
    assert "refused" in listed
    assert "0.800 [0.700, 0.900]" in listed
    assert slipway("runs", "aaaa1", "bbbb", "--root", tmp_path) == 0
    compared = capsys.readouterr().out
    assert "training.seed" in compared
    assert "training.learning_rate" not in compared
    assert slipway("runs", "aaaa1", "bbbb", "--root", tmp_path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["differences"]["training.seed"] == ["13", "14"]
    assert slipway("runs", "zzz", "--root", tmp_path) == 1
    assert slipway("runs", "--root", tmp_path / "nowhere") == 0
    assert "no finished runs" in capsys.readouterr().err
