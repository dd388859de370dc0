import threading
from dataclasses import dataclass
from typing import cast

import pytest

from benchmarks.process import Server, Weight
from benchmarks.soak import Sample, mixed_lengths, summarize, watch
from benchmarks.workload import Workload
from benchmarks.wrk import BenchmarkError


def test_bodies_have_every_size() -> None:
    workload = Workload("test", ("a", "b"), ("long text",), ())
    bodies = mixed_lengths(workload)
    assert {len(body) for body in bodies} == {1, 2, 4, 8}
    assert bodies == mixed_lengths(workload)


def test_slopes_are_per_hour_and_after_settling() -> None:
    samples = [Sample(float(second), 100_000_000 + second * 1000, 10) for second in range(0, 600, 5)]
    found = summarize(samples, requests=42)
    assert found["rss_mb_per_hour"] == pytest.approx(3.6)
    assert found["open_files_per_hour"] == pytest.approx(0)
    assert found["requests"] == 42


def test_too_few_samples_say_nothing() -> None:
    with pytest.raises(BenchmarkError, match="longer"):
        summarize([Sample(0, 1, 1)], 1)


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
