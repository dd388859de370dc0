from pathlib import Path
from typing import Any, cast

import pytest

from benchmarks import openvino
from benchmarks.bench import headline, measure_extra, percent_of_peak, section, throughput_table, write_docs
from benchmarks.http import FULL, LOADS, QUICK
from benchmarks.process import Weight, weights
from benchmarks.targets import TARGETS, lookup
from benchmarks.wrk import BenchmarkError

OPENED = {"goodput_at_2x": 0.96, "p99_ms_at_2x": 450.0, "deadline_seconds": 0.5, "loads": {}}


def run(kind: str, clients: int, repetition: int) -> dict[str, Any]:
    found = {
        "kind": kind,
        "clients": clients,
        "repetition": repetition,
        "requests_per_second": 500.0 + repetition,
        "texts_per_second": 500.0,
        "p50_ms": 5.0,
        "p99_ms": 9.0,
        "cpu_ms_per_request": 3.0,
        "padded_over_real": 1.05,
        "client_cpu_share": 0.01,
        "before": {"limit_cpu_ms": 2.5},
    }
    if kind == "mixed":
        return found | {"speedup": 2.2}
    found |= {"ratio": 0.9, "ratio_yardstick": 0.85, "cpu_over_limit": 1.2}
    return found | ({"batch1_ms": 4.0} if kind == "short" else {})


def result() -> dict[str, Any]:
    runs = [run(kind, clients, repetition) for kind, clients in LOADS for repetition in range(3)]
    limit = {"texts_per_second": 600.0, "layout": "2 x 1", "percent_of_peak": 30.0}
    return {
        **headline(runs, OPENED),
        **weights(Weight(180_000_000, 150_000_000, 20, 1)),
        "cold_start_s": 0.9,
        "first_request_ratio": {"median": 1.1, "longest": 1.3},
        "openvino": None,
        "openvino_why_not": openvino.NOT_INSTALLED,
        "engine": "onnxruntime",
        "variant": "int8",
        "limits": {"short": limit, "long": limit | {"percent_of_peak": None}},
        "http_floor": {
            "1": {"requests_per_second": 2000.0, "p50_ms": 0.4, "p99_ms": 0.9, "cpu_ms_per_request": 0.3},
        },
        "peak_gops": {"int8": {"onnxruntime": 1000.0}, "bf16": {}},
        "minutes": 2.0,
        "machine": {
            "command": "python -m benchmarks.bench",
            "time": "2026-01-01T00:00:00+00:00",
            "cpu": "CPU",
            "cores": 2,
            "instruction_sets": ["avx2"],
            "kernel": "6.1",
            "python": "3.11",
            "versions": {"onnxruntime": "1.31"},
            "wrk": "4.1",
        },
    }


def test_every_target_finds_its_figure_in_the_result() -> None:
    found = result()
    assert [target.title for target in TARGETS if lookup(found, target.path) is None] == []


def test_the_result_carries_what_was_promised() -> None:
    found = result()
    assert found["ratio"].keys() == found["ratio_yardstick"].keys() == {"8", "32", "128"}
    assert found["ratio_long"].keys() == {"32"}
    assert found["p50_ms"].keys() == found["p99_ms"].keys() == {"1", "8", "32", "128"}
    assert found["p50_over_batch1_ms"] == pytest.approx(1.0)
    assert found["p99_over_deadline_at_2x"] == pytest.approx(0.9)
    assert found["memory_mb"] == 180.0
    assert found["spread"]["requests_per_second.32"] == [500.0, 502.0]


def test_a_throughput_is_a_share_of_the_peak() -> None:
    found = result()
    assert percent_of_peak(found, "short", 300) == pytest.approx(15)
    assert percent_of_peak(found, "long", 300) is None
    table = throughput_table(found)
    assert "| served, 32 clients, short texts | 501 | 25 % |" in table
    assert "int8 1000" in table


def test_the_page_gets_the_last_run_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text("before\n<!-- bench: begin -->\nold\n<!-- bench: end -->\nafter\n", encoding="utf-8")
    write_docs(result(), page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert section(result()) in text


def test_the_page_says_what_openvino_does_or_why_it_does_not() -> None:
    assert "With the OpenVINO extra: not installed: pip install slipway[openvino]." in section(result())


def setting() -> openvino.Setting:
    """Of a measurement that is not made."""
    return cast("openvino.Setting", None)


def test_a_quick_run_leaves_openvino_out_and_says_so() -> None:
    assert measure_extra(setting(), QUICK) == ({"openvino": None, "openvino_why_not": "left out by --quick"}, {})


def test_what_openvino_cannot_do_costs_nothing_that_was_measured_before(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: openvino.Setting) -> None:
        raise BenchmarkError(openvino.NOT_INSTALLED)

    monkeypatch.setattr(openvino, "measure", fail)
    assert measure_extra(setting(), FULL)[0] == {"openvino": None, "openvino_why_not": openvino.NOT_INSTALLED}


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text("nothing", encoding="utf-8")
    with pytest.raises(BenchmarkError, match="has no"):
        write_docs(result(), page)
    assert page.read_text(encoding="utf-8") == "nothing"
