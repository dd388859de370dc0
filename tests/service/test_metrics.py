import re
from pathlib import Path

import pytest
from prometheus_client import values
from prometheus_client.multiprocess import mark_process_dead

from service.metrics import Metrics, ModelKey, ModelObserver, share_values

ROOT = Path(__file__).parents[2]
KEY = ModelKey("sentiment", "3", "text-classification")
LABELS = {"model": "sentiment", "version": "3", "task": "text-classification"}


def _observe(observer: ModelObserver, *, failed: bool = False) -> None:
    observer.batch_done(
        inputs=2,
        rows=2,
        real_tokens=9,
        padded_tokens=10,
        queue_seconds=[0.1, 0.2],
        tokenization_seconds=0.01,
        inference_seconds=0.5,
        failed=failed,
    )


def test_names_carry_prefix_unit_and_total() -> None:
    for family in Metrics(process=False).families():
        assert re.fullmatch(r"slipway_[a-z_]+", family.name)
        assert family.name.endswith("_total") == (family.kind == "counter")
        assert "_ms" not in family.name
        assert family.help.endswith(".") or family.name == "slipway_build_info"


def test_an_execution_is_counted_in_every_phase() -> None:
    metrics = Metrics(process=False)
    observer = ModelObserver(metrics, KEY)
    _observe(observer)
    _observe(observer, failed=True)

    def value(name: str) -> float | None:
        return metrics.registry.get_sample_value(name, LABELS)

    assert value("slipway_inputs_total") == 4
    assert value("slipway_tokens_total") == 18
    assert value("slipway_padded_tokens_total") == 20
    assert value("slipway_batch_size_count") == 2
    assert value("slipway_batch_size_sum") == 4
    assert value("slipway_queue_duration_seconds_count") == 4
    assert value("slipway_inference_duration_seconds_sum") == 1.0
    assert value("slipway_failed_executions_total") == 1


def test_two_services_do_not_share_series() -> None:
    first, second = Metrics(process=False), Metrics(process=False)
    first.ready.set(1)
    assert second.registry.get_sample_value("slipway_ready") == 0


def test_no_created_series_and_process_metrics_are_there() -> None:
    page = Metrics().render().decode()
    assert "_created" not in page
    assert "process_resident_memory_bytes" in page
    assert "slipway_build_info{" in page


def test_processes_that_share_their_values_tell_of_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    both = []
    for number in range(2):
        share_values(tmp_path, number)
        metrics = Metrics(shared=tmp_path)
        _observe(ModelObserver(metrics, KEY))
        metrics.ready.set(1)
        metrics.ready_processes.set(1)
        metrics.connections.set(3)
        both.append(metrics)
    for metrics in both:
        page = metrics.render().decode()
        assert re.search(r"^slipway_inputs_total\{.*\} 4.0$", page, re.MULTILINE)
        assert re.search(r"^slipway_batch_size_count\{.*\} 2.0$", page, re.MULTILINE)
        assert "\nslipway_ready 1.0\n" in page
        assert "\nslipway_ready_processes 2.0\n" in page
        assert "\nslipway_connections 6.0\n" in page
        assert page.count("# TYPE slipway_connections gauge") == 1


def test_a_process_takes_up_the_counts_of_the_one_it_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    for times in (1, 2):
        share_values(tmp_path, 0)
        metrics = Metrics(shared=tmp_path)
        metrics.connections.set(3)
        _observe(ModelObserver(metrics, KEY))
        page = metrics.render().decode()
        assert re.search(rf"^slipway_inputs_total\{{.*\}} {2 * times}.0$", page, re.MULTILINE)
        mark_process_dead(0, str(tmp_path))  # type: ignore[no-untyped-call]
        assert "slipway_connections 3.0" not in metrics.render().decode()


def test_process_metrics_of_several_add_up_and_the_newest_start_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    alone = _values(Metrics().render())
    for number in range(2):
        share_values(tmp_path, number)
        metrics = Metrics(shared=tmp_path)
    found = _values(metrics.render())
    assert found["process_start_time_seconds"] == alone["process_start_time_seconds"]
    for name in ("process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"):
        assert found[name] == pytest.approx(2 * alone[name], rel=0.5)
    assert {name for name in alone if name.startswith("p")} == {name for name in found if name.startswith("p")}
    again = _values(metrics.render())
    assert again["process_cpu_seconds_total"] < 1.5 * found["process_cpu_seconds_total"]


def _values(page: bytes) -> dict[str, float]:
    pairs = (line.rsplit(" ", 1) for line in page.decode().splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def test_monitoring_asks_only_for_metrics_that_exist() -> None:
    names = {family.name for family in Metrics(process=False).families()}
    histograms = {f.name for f in Metrics(process=False).families() if f.kind == "histogram"}
    names |= {f"{name}_{part}" for name in histograms for part in ("bucket", "count", "sum")}
    files = [path for path in (ROOT / "monitoring").rglob("*") if path.suffix in {".yml", ".yaml", ".json"}]
    for path in files:
        asked = set(re.findall(r"\bslipway_[a-z_]+", path.read_text(encoding="utf-8")))
        assert asked <= names, f"{path.name}: {sorted(asked - names)}"


def test_what_the_response_cache_said_is_counted_by_outcome() -> None:
    metrics = Metrics(process=False)
    observer = ModelObserver(metrics, KEY)
    observer.inputs_looked_up(hits=2, joined=0, misses=1)
    observer.inputs_looked_up(hits=0, joined=3, misses=1)
    observer.inputs_answered_again([], [])

    def value(outcome: str) -> float | None:
        name = "slipway_response_cache_inputs_total"
        return metrics.registry.get_sample_value(name, {**LABELS, "outcome": outcome})

    assert [value(outcome) for outcome in ("hit", "joined", "miss")] == [2, 3, 2]
