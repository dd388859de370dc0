"""training/line.py: one line a step, and the data and encoder that all steps start from."""

import io
import re
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from tests.training import tiny
from training.line import Line
from training.recipe import load_recipe


def line_in(home: Path, out: io.StringIO, progress: Progress) -> Line:
    tiny.project(home)
    console = Console(file=out, width=200, highlight=False)
    return Line(load_recipe(home / "recipe.toml"), home / "cache", console, progress)


def test_data_and_encoder_are_fetched_and_prepared_in_two_lines(tmp_path: Path, progress: Progress) -> None:
    out = io.StringIO()
    encoder, prepared = line_in(tmp_path, out, progress).fetch_and_prepare()
    assert (encoder.path, len(prepared.train)) == (tmp_path / "encoder", prepared.counts["train"])
    fetched, divided = out.getvalue().splitlines()
    assert re.fullmatch(r"✓ fetch      300 rows of reviews\.csv; encoder encoder  \d+\.\d s", fetched)
    assert f"{len(prepared.train)} / {len(prepared.validation)} / {len(prepared.test)} to train" in divided


def test_a_step_that_was_found_says_so_in_place_of_its_time(tmp_path: Path, progress: Progress) -> None:
    out = io.StringIO()
    line_in(tmp_path, out, progress).say("gate", "passed: fp32")
    assert out.getvalue() == "✓ gate       passed: fp32  found finished\n"
