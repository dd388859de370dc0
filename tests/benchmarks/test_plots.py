from pathlib import Path

from benchmarks.plots import draw_all


def load(offered: float) -> dict[str, dict[str, float]]:
    return {name: {"median": offered} for name in ("offered_rate", "p50_ms", "p99_ms", "goodput")}


RESULT = {
    "open_loop": {"loads": {"0.5": load(1.0), "2.0": load(2.0)}},
    "cpu_ms_per_request": {"32": 3.0},
    "limit_cpu_ms": 2.5,
    "padding": {"short-32": 1.1, "mixed-1": 1.02},
}


def test_every_figure_becomes_a_picture(tmp_path: Path) -> None:
    drawn = draw_all(RESULT, tmp_path, {"peer": {"cpu_ms_per_request": {"32": 5.0}}})
    assert {path.name for path in drawn} == {"open-loop.svg", "cpu-per-request.svg", "padding.svg"}
    assert all(path.read_text(encoding="utf-8").lstrip().startswith("<?xml") for path in drawn)


def test_servers_are_drawn_together(tmp_path: Path) -> None:
    peer = {**RESULT, "padding": {"short-32": 1.6, "long-32": 1.3}}
    drawn = {path.name: path for path in draw_all(RESULT, tmp_path, {"mosec": peer}, prefix="peers-")}
    assert drawn.keys() == {f"peers-{name}.svg" for name in ("open-loop", "cpu-per-request", "padding")}
    assert all("mosec" in path.read_text(encoding="utf-8") for path in drawn.values())


def test_the_same_result_gives_the_same_picture(tmp_path: Path) -> None:
    first = [path.read_bytes() for path in draw_all(RESULT, tmp_path / "1")]
    assert first == [path.read_bytes() for path in draw_all(RESULT, tmp_path / "2")]


def test_what_was_not_measured_is_not_drawn(tmp_path: Path) -> None:
    assert draw_all({}, tmp_path) == []
