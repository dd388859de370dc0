from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from artifact.repository import Repository
from benchmarks import http
from benchmarks.http import (
    LOADS,
    NOBODYS,
    QUICK,
    YARDSTICKS,
    Target,
    as_shipped,
    closed_figures,
    compare,
    engine_of,
    make_gauge,
    run_load,
    summarize,
    tokens_of,
)
from benchmarks.peers.encoder import TokenCounter
from benchmarks.process import Server
from benchmarks.share import Share
from benchmarks.workload import Workload
from benchmarks.wrk import BenchmarkError, Load
from inference.engines import Choice, open_cache
from inference.plan import candidates
from tests.tiny_artifact import publish_tiny

PAGE = """\
# HELP slipway_tokens_total Tokens of executed inputs.
# TYPE slipway_tokens_total counter
slipway_tokens_total{model="sentiment",task="text-classification",version="1"} 93928.0
# TYPE slipway_padded_tokens_total counter
slipway_padded_tokens_total{model="sentiment",task="text-classification",version="1"} 97077.0
slipway_padded_tokens_total{model="sentiment",task="text-classification",version="2"} 3.0
slipway_unknown_tokens_total{model="sentiment",task="text-classification",version="1"} 5.0
"""
RUN = {
    "kind": "short",
    "clients": 32,
    "requests_per_second": 600.0,
    "texts_per_second": 600.0,
    "cpu_ms_per_request": 3.0,
    "p50_ms": 50.0,
    "p99_ms": 70.0,
    "client_cpu_share": 0.01,
    "padded_over_real": 1.1,
}
BEFORE = {"limit": 700.0, "yardstick": 650.0, "limit_cpu_ms": 2.5, "batch1_ms": 3.0}
AFTER = {"limit": 800.0, "yardstick": 750.0, "limit_cpu_ms": 3.5, "batch1_ms": 4.0}


def test_tokens_are_read_from_the_metrics_page_over_all_versions() -> None:
    assert tokens_of(PAGE) == (93928.0, 97080.0)


def test_a_run_is_compared_with_the_references_around_it() -> None:
    found = compare(RUN, BEFORE, AFTER)
    assert found["ratio"] == pytest.approx(0.8)
    assert found["ratio_yardstick"] == pytest.approx(600 / 700)
    assert found["cpu_over_limit"] == pytest.approx(1.0)
    assert found["batch1_ms"] == pytest.approx(3.5)


def test_a_peer_is_compared_with_the_limit_of_what_it_serves() -> None:
    theirs = {f"{YARDSTICKS}{name}": value for name, value in (("limit", 1000.0), ("limit_cpu_ms", 2.0))}
    found = compare(RUN, BEFORE | theirs, AFTER | theirs, YARDSTICKS)
    assert found["ratio"] == pytest.approx(0.6)
    assert found["cpu_over_limit"] == pytest.approx(1.5)
    assert found["ratio_yardstick"] == pytest.approx(600 / 700)


def test_without_a_limit_of_its_own_a_peer_is_compared_with_the_yardstick_only() -> None:
    found = compare(RUN, BEFORE, AFTER, NOBODYS)
    assert not {"ratio", "cpu_over_limit", "batch1_ms"} & found.keys()
    assert "ratio_yardstick" in found


def test_a_peers_tokens_and_its_share_of_the_peak(tmp_path: Path) -> None:
    server = cast("Server", None)
    shares = {"short": Share(0.05, 100.0)}
    target = Target("peer", server, {}, is_slipway=False, counts=tmp_path, shares=shares)
    assert target.tokens() is None
    TokenCounter(tmp_path).add(3, 4)
    assert target.tokens() == (3, 4)
    assert target.percent_of_peak("short", 400) == pytest.approx(20)
    assert target.percent_of_peak("long", 400) is None


class Idle:
    """A server that uses no CPU."""

    url = "http://127.0.0.1:1"

    def cpu_seconds(self) -> float:
        return 1.0

    settled_cpu_seconds = cpu_seconds


@pytest.fixture
def periods(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How long each load ran; a load has an answer once it runs for eight seconds."""
    asked: list[int] = []

    def closed(url: str, bodies: Path, *, clients: int, seconds: int, path: str) -> Load:
        asked.append(seconds)
        return Load(clients, 5 if seconds >= 8 else 0, float(seconds), 1.0, 2.0, 3.0, 4.0, 1.5, 0, 0.1)

    monkeypatch.setattr(http, "run_closed", closed)
    return asked


def test_a_slow_server_is_loaded_until_it_answers(periods: list[int]) -> None:
    target = Target("slow", cast("Server", Idle()), {"short": Path("bodies")}, is_slipway=False)
    assert run_load(target, "short", 128, 2)["requests"] == 5
    assert periods == [2, 8]


def test_a_server_that_does_not_answer_at_all_is_given_up(periods: list[int]) -> None:
    target = Target("dead", cast("Server", Idle()), {"short": Path("bodies")}, is_slipway=False)
    with pytest.raises(BenchmarkError, match="dead: no answer within 0 s"):
        run_load(target, "short", 1, 0)
    assert len(periods) == 3


def test_many_texts_are_compared_with_one_padded_batch() -> None:
    found = compare({**RUN, "kind": "mixed", "texts_per_second": 90.0}, {"padded_batch": 40.0}, {"padded_batch": 50.0})
    assert found["speedup"] == pytest.approx(2.0)
    assert "ratio" not in found


def test_repetitions_become_a_median_and_a_range_for_each_load() -> None:
    runs = [
        compare({**RUN, "requests_per_second": rate, "texts_per_second": rate}, BEFORE, AFTER) for rate in (1, 3, 2)
    ]
    found = summarize([*runs, compare({**RUN, "clients": 8}, BEFORE, AFTER)])
    assert found.keys() == {"short-32", "short-8"}
    assert found["short-32"]["requests_per_second"] == {"median": 2, "low": 1, "high": 3, "runs": 3}
    assert "speedup" not in found["short-8"]


def test_the_limit_is_that_of_the_engine_which_serves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openvino")
    publish_tiny(tmp_path)
    workload = Workload("test", ("good", "bad film"), ("a dull , boring movie",), (("good", "bad film"),))
    plan = replace(QUICK, reference_seconds=0.0, grid_seconds=0.0)
    served = {"variant": "fp32", "engine": "openvino"}
    gauge, grids = make_gauge(Repository(tmp_path).open("sentiment"), served, workload, plan, None, {})
    assert gauge.limit.engine == "openvino"
    assert grids.keys() == {"short", "long"}
    assert gauge.read("short")["limit"] > 0
    assert "The limit of fp32 on openvino, short texts" in capsys.readouterr().out


def test_the_engine_is_the_one_of_the_version_that_answers() -> None:
    versions = [
        {"name": "sentiment", "version": 1, "engine": "onnxruntime"},
        {"name": "sentiment", "version": 2, "engine": "openvino-bf16"},
        {"name": "sentiment", "version": 3, "engine": None},
    ]
    assert engine_of({"models": versions}, {"name": "sentiment", "version": 2}) == "openvino-bf16"
    with pytest.raises(BenchmarkError, match="sentiment:3"):
        engine_of({"models": versions}, {"name": "sentiment", "version": 3})


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_what_the_default_image_lacks_is_not_served_for_it(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setenv("SLIPWAY_CACHE_DIR", str(tmp_path / "cache"))
    publish_tiny(tmp_path / "models")
    artifact = Repository(tmp_path / "models").open("sentiment")
    assert as_shipped(artifact, None) == {}
    cache = open_cache(tmp_path / "cache")
    plan = next(each for each in candidates(artifact.manifest, cache.cpu, cache.installed) if each.engine == engine)
    cache.write(artifact, Choice(plan, "a test"), [])
    assert as_shipped(artifact, None) == ({} if engine == "onnxruntime" else {"SLIPWAY_ENGINE": "onnxruntime"})
    assert as_shipped(artifact, "fp32") == {}


def test_figures_that_do_not_apply_are_none() -> None:
    runs = [{**RUN, "kind": kind, "clients": clients} for kind, clients in LOADS if kind != "mixed"]
    found = closed_figures(runs)
    assert found["ratio"] is None
    assert found["p99_ms"] == {"1": 70.0, "8": 70.0, "32": 70.0, "128": 70.0}
