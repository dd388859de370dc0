"""benchmarks/prepare.py: the rows are what they are said to be, and a small run measures the real thing."""

import csv
import json
import subprocess
import sys
from pathlib import Path

from benchmarks import prepare
from tests.training import tiny

ROOT = Path(__file__).parents[2]


def test_the_rows_are_the_same_every_time(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        prepare.write_rows(tmp_path / name, 500)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 500
    assert {row["label"] for row in rows} == {"negative", "neutral", "positive"}
    assert len({row["text"] for row in rows}) < 500


def test_a_small_run_ends_with_one_json_document(tmp_path: Path) -> None:
    tiny.encoder_folder(tmp_path / "encoder")
    command = [sys.executable, "-m", "benchmarks.prepare", "--rows", "600", "--encoder", str(tmp_path / "encoder")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["rows"] == result["counts"]["read"] == 600
    assert result["counts"]["near_duplicates"] > 0
    assert result["masked"]["email"] > 0
    assert result["peak_rss_bytes"] > 0
