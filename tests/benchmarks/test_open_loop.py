from pathlib import Path

import pytest

from benchmarks.open_loop import FACTORS, OpenLoad, describe_point, summarize_points
from benchmarks.wrk import Arrivals

LOAD = OpenLoad(0.5, Path("bodies"), Path("samples"))


def arrivals(accepted: int, refused: int, slow: int = 0) -> Arrivals:
    latencies = (10.0,) * accepted + (600.0,) * slow
    return Arrivals(100, 2.0, latencies, refused, 0, 0, 3, 0.1)


def test_a_point_says_what_was_answered_in_time() -> None:
    point = describe_point(arrivals(accepted=60, refused=20, slow=20), LOAD, 90, 110)
    assert point["goodput"] == 30
    assert point["goodput_over_limit"] == pytest.approx(0.3)
    assert point["refused_share"] == pytest.approx(0.2)
    assert point["p99_ms"] == 600.0


def test_goodput_at_twice_the_saturation_is_held_against_the_best_load() -> None:
    goodputs = dict(zip(FACTORS, (50, 80, 100, 98, 96), strict=True))
    points = [
        {"factor": factor, **describe_point(arrivals(2 * goodputs[factor], 10), LOAD, speed, speed)}
        for factor in FACTORS
        for speed in (100, 100)
    ]
    found = summarize_points(points)
    assert found["goodput_at_2x"] == pytest.approx(0.96)
    assert found["loads"]["0.5"]["goodput"]["runs"] == 2
    assert found["unanswered"] == 0
    assert 0 < found["sent_late_share"] < 0.1


def test_a_server_that_answered_nothing_has_no_goodput() -> None:
    points = [{"factor": factor, **describe_point(arrivals(0, 10), LOAD, 100, 100)} for factor in FACTORS]
    assert summarize_points(points)["goodput_at_2x"] == 0
