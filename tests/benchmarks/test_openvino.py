from pathlib import Path
from typing import Any

import pytest

from artifact.repository import Artifact, Repository
from benchmarks.http import LOADS
from benchmarks.limit import Layout, Sample
from benchmarks.openvino import NOT_INSTALLED, choose, its_engines, limit_of, result_of, section, settings_of
from benchmarks.share import Share
from benchmarks.wrk import BenchmarkError
from inference.backends.registry import installed_engines
from inference.engines import Choice, open_cache
from inference.layout import read_cpu
from inference.plan import Plan
from tests.benchmarks.test_bench import run
from tests.tiny_artifact import publish_tiny

FOUND: dict[str, Any] = {
    "engine": "openvino-bf16",
    "variant": "fp32",
    "version": "2026.4.1",
    "memory_mb": 310.2,
    "cold_start_s": 1.234,
}


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    publish_tiny(tmp_path / "models")
    return Repository(tmp_path / "models").open("sentiment")


def test_only_its_own_engines_are_measured() -> None:
    installed = {"onnxruntime": "1", "openvino": "2", "openvino-bf16": "2", "torchscript": "3"}
    assert its_engines(installed) == {"openvino": "2", "openvino-bf16": "2"}


def test_without_the_extra_the_reason_says_how_to_get_it(artifact: Artifact, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"pip install slipway\[openvino\]"):
        choose(artifact, read_cpu(), {}, tmp_path)


def test_an_artifact_that_it_cannot_run_is_said_to_be_one(artifact: Artifact, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="no variant"):
        choose(artifact, read_cpu(), {"openvino-of-tomorrow": "1"}, tmp_path)


def test_the_best_of_its_plans_is_chosen_and_the_machines_choice_left_alone(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setenv("SLIPWAY_CACHE_DIR", str(tmp_path / "cache"))
    choice = choose(artifact, read_cpu(), its_engines(installed_engines()), tmp_path / "work", seconds=0.2)
    assert choice.plan.engine.startswith("openvino")
    assert open_cache(tmp_path / "cache").read(artifact) is None


def test_a_plan_is_served_as_an_operator_asks_for_it() -> None:
    assert settings_of(Plan("fp32", "openvino", 2, 1)) == {
        "SLIPWAY_ENGINE": "openvino",
        "SLIPWAY_MODEL_WORKERS": "2",
        "SLIPWAY_THREADS": "1",
    }


def test_the_limit_is_the_best_of_its_grid() -> None:
    samples = {Layout(2, 1, True, size): [Sample(rate, 0, 1.0, 0.0)] for size, rate in ((1, 100), (8, 400))}
    assert limit_of(samples, Share(0.05, 100.0)) == {
        "texts_per_second": 400.0,
        "layout": "2 x 1 threads, 1 session, batches of 8",
        "percent_of_peak": pytest.approx(20),
    }


def test_the_table_states_each_load_apart() -> None:
    runs = [run(kind, clients, 0) for kind, clients in LOADS if kind != "mixed"]
    grids = {"short": {Layout(2, 1, True, 8): [Sample(700, 0, 1.0, 0.0)]}}
    found = result_of(Choice(Plan("fp32", "openvino-bf16", 2, 1), "a test"), grids, {"short": Share(0, 0)}, runs)
    assert found["ratio"] == {"8": 0.9, "32": 0.9, "128": 0.9}
    lines = section({"openvino": FOUND | found}).splitlines()
    assert "variant `fp32` on openvino-bf16, 2 x 1 threads" in lines[0]
    assert "Memory 310 MB, process start to first answer 1.23 s." in lines[0]
    assert "| limit, short texts: 2 x 1 threads, 1 session, batches of 8 | 700 |" in lines[4]
    assert lines[-1].startswith("| served, 32 clients, long texts | 500 | 0.90 |")


def test_what_was_not_measured_is_one_sentence() -> None:
    assert section({"openvino": None, "openvino_why_not": NOT_INSTALLED}) == (
        "With the OpenVINO extra: not installed: pip install slipway[openvino]."
    )
