import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from benchmarks.bench import RESULTS
from benchmarks.process import Server, Weight
from benchmarks.soak import (
    Sample,
    failures,
    mixed_lengths,
    report,
    results_folder,
    summarize,
    watch,
    write_samples,
)
from benchmarks.workload import Workload
from benchmarks.wrk import BenchmarkError, Load


def load(requests: int = 100, failed: int = 0, refused: int = 0) -> Load:
    return Load(16, requests, 60.0, 1.0, 2.0, 3.0, 4.0, 1.5, failed, 0.1, refused)


def files(*counts: int) -> list[Sample]:
    return [Sample(float(second), 100_000_000, count) for second, count in enumerate(counts)]


def test_bodies_have_every_size() -> None:
    workload = Workload("test", ("a", "b"), ("long text",), ())
    bodies = mixed_lengths(workload)
    assert {len(body) for body in bodies} == {1, 2, 4, 8}
    assert bodies == mixed_lengths(workload)


def test_slopes_are_per_hour_and_after_settling() -> None:
    samples = [Sample(float(second), 100_000_000 + second * 1000, 10) for second in range(0, 600, 5)]
    found = summarize(samples, load(requests=42))
    assert found["rss_mb_per_hour"] == pytest.approx(3.6)
    assert found["open_files_per_hour"] == pytest.approx(0)
    assert found["requests"] == 42


def test_too_few_samples_say_nothing() -> None:
    with pytest.raises(BenchmarkError, match="longer"):
        summarize([Sample(0, 1, 1)], load())


def test_the_server_is_watched_until_told_to_stop() -> None:
    stop = threading.Event()

    @dataclass
    class Double:
        looks: int = 0

        def weigh(self) -> Weight:
            self.looks += 1
            if self.looks == 3:
                stop.set()
            return Weight(self.looks, 0, 5, 1)

    samples = watch(cast("Server", Double()), stop, every_seconds=0.001)
    assert [sample.rss_bytes for sample in samples] == [1, 2, 3]


def test_a_lost_request_is_a_failure() -> None:
    assert failures(files(10, 10, 10), load(failed=2)) == ["2 requests were lost, 100 were answered"]
    assert failures(files(10, 10, 10), load(requests=0)) == ["no request was answered"]


def test_files_that_stay_open_are_a_failure() -> None:
    assert failures(files(10, 12, 20, 30, 40, 50), load()) == ["open files grew from at most 12 to at least 40"]


def test_files_that_come_and_go_are_none() -> None:
    assert failures(files(10, 10, 10, 40, 10, 40), load()) == []
    assert failures(files(26, 26, 27, 28, 26, 27), load()) == []


def test_only_a_full_run_writes_into_the_repository_unasked(tmp_path: Path) -> None:
    assert results_folder(None, 1) is None
    assert results_folder(None, 29.9) is None
    assert results_folder(None, 30) == RESULTS
    assert results_folder(tmp_path, 1) == results_folder(tmp_path, 30) == tmp_path


def test_samples_are_kept_with_the_result(tmp_path: Path) -> None:
    write_samples(tmp_path / "new", {"requests": 3}, files(10, 11))
    kept = json.loads((tmp_path / "new" / "soak.json").read_text(encoding="utf-8"))
    assert kept["requests"] == 3
    assert [sample["open_files"] for sample in kept["samples"]] == [10, 11]


def test_no_speed_and_no_memory_is_a_failure() -> None:
    growing = [Sample(float(second), 100_000_000 * (second + 1), 10) for second in range(20)]
    assert failures(growing, load(requests=1, refused=1)) == []


def test_the_slope_of_memory_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    samples = [Sample(float(second), 100_000_000 + second * 1000, 10) for second in range(0, 600, 5)]
    report({**summarize(samples, load(requests=42, refused=1)), "failures": ["2 requests were lost, 42 were answered"]})
    printed = capsys.readouterr()
    assert "42 requests in 9.92 minutes, 1 of them refused" in printed.out
    assert "slope +3.6 MB/hour" in printed.out
    assert printed.err == "failed: 2 requests were lost, 42 were answered\n"
