import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.figures import percentile, sandwiched, settled_slope, slope, spread


def test_a_spread_is_the_median_and_what_it_came_from() -> None:
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "low": 1.0, "high": 3.0, "runs": 3}
    with pytest.raises(ValueError, match="no runs"):
        spread([])


@given(st.floats(0.5, 2), st.floats(-0.4, 0.4))
def test_a_machine_that_changes_speed_steadily_does_not_change_the_ratio(speed: float, drift: float) -> None:
    before, during, after = speed - drift, speed, speed + drift
    assert sandwiched(0.8 * during, before, after) == pytest.approx(0.8)


@pytest.mark.parametrize(("percent", "expected"), [(0, 1), (50, 5), (90, 9), (99, 10), (100, 10)])
def test_percentiles_are_values_that_occurred(percent: float, expected: float) -> None:
    assert percentile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], percent) == expected


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_a_slope_is_per_unit_of_time() -> None:
    assert slope([0, 10, 20], [100, 105, 110]) == pytest.approx(0.5)
    assert slope([1], [7]) == 0
    assert slope([], []) == 0


def test_growth_while_settling_does_not_count() -> None:
    times = list(range(100))
    values = [min(time, 20) for time in times]
    assert slope(times, values) > 0.05
    assert settled_slope(times, values) == pytest.approx(0)
    assert settled_slope([], []) == 0
