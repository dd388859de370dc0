"""cli/bench.py: a tiny model measured, and the choice kept."""

import json
from pathlib import Path

import pytest

from tests.cli.command import Capture, refusal_of, slipway


def test_it_wants_to_know_what_to_measure(capsys: Capture) -> None:
    assert "say what to measure: --engines" in refusal_of(capsys, "bench")


def test_every_plan_is_shown_and_the_choice_is_kept_in_the_cache(
    published: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIPWAY_CACHE_DIR", str(tmp_path))
    assert slipway("bench", "sentiment:1", "--engines", "--seconds", 0, "--json", repository=published) == 0
    out, err = capsys.readouterr()
    table, _, last = out.rstrip().rpartition("\n")
    document = json.loads(last)
    assert document["model"] == "sentiment:1"
    assert Path(document["kept"]).is_relative_to(tmp_path)
    assert len(document["measured"]) >= 1
    assert "drift by neighbours" in table
    assert f"* {document['choice']['plan']['variant']}" in table
    assert document["choice"]["why"] in err
