"""cli/explore.py: a small table, looked at with a tiny encoder."""

import json
from pathlib import Path

from tests.cli.command import Capture, slipway
from tests.training import tiny


def explored(folder: Path, *options: object) -> int:
    """Explore a small table with a tiny encoder."""
    tiny.project(folder)
    page = folder / "page.html"
    where = ("--output", page, "--run-dir", folder / "run")
    return slipway("explore", folder / "reviews.csv", "--encoder", folder / "encoder", *where, *options)


def test_explore_prints_what_it_found_and_writes_the_page(capsys: Capture, tmp_path: Path) -> None:
    assert explored(tmp_path) == 0
    out, err = capsys.readouterr()
    assert "what training does" in out
    assert err.endswith(f"the page is {tmp_path / 'page.html'}\n")
    assert "<!doctype html>" in (tmp_path / "page.html").read_text()


def test_explore_prints_its_figures_as_json(capsys: Capture, tmp_path: Path) -> None:
    assert explored(tmp_path, "--json", "--held-out", tmp_path / "reviews.csv") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["outcome"]["counts"]["read"] == 300
    assert figures["held_out"][0]["exact"] == 300
    assert {"topic", "level", "found", "training"} == figures["advice"][0].keys()


def test_explore_refuses_in_one_line(capsys: Capture, tmp_path: Path) -> None:
    assert explored(tmp_path, "--label-column", "stars") == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: reviews.csv, row 1: column 'stars' is not there; name another with --label-column"
    )
