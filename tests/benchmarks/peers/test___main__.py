from typing import Any

from benchmarks.peers.__main__ import LOADS, figures_of, table
from tests.benchmarks.test_bench import run


def figures() -> dict[str, Any]:
    return figures_of([run(kind, clients, repetition) for kind, clients in LOADS for repetition in range(2)])


def test_a_peer_has_the_figures_that_bench_has() -> None:
    found = figures()
    assert found["ratio_yardstick"] == {"1": 0.85, "8": 0.85, "32": 0.85, "128": 0.85}
    assert found["ratio_long"] == {"32": 0.9}
    assert found["cpu_over_limit"] == 1.2


def test_the_table_has_a_line_for_every_server() -> None:
    shown = {"title": "mosec", **figures(), "memory_mb": 300.0, "cold_start_s": 2.0}
    ours = {"title": "Slipway", **figures(), "memory_mb": 180.0}
    lines = table({"peers": {"mosec": shown}, "slipway": ours}).splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| mosec | 5.0 | 0.85 |")
    assert "| Slipway |" in lines[3]
