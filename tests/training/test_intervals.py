"""training/intervals.py: against published figures, against scipy, and at the ends."""

import numpy as np
import pytest
from scipy.stats import binomtest  # type: ignore[import-untyped]

from training.intervals import mean_over_folds, proportion, proportion_difference


@pytest.mark.parametrize(("successes", "rows"), [(0, 7), (3, 10), (81, 263), (990, 990)])
def test_a_proportion_agrees_with_scipy(successes: int, rows: int) -> None:
    found = proportion(successes, rows)
    expected = binomtest(successes, rows).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize(("successes", "rows"), [(0, 0), (3, 2), (-1, 2)])
def test_what_is_no_proportion_is_refused(successes: int, rows: int) -> None:
    with pytest.raises(ValueError, match="no proportion"):
        proportion(successes, rows)


@pytest.mark.parametrize(
    ("one", "other", "low", "high"),
    # Newcombe 1998, table II, method 10.
    [((56, 70), (48, 80), 0.0524, 0.3339), ((9, 10), (3, 10), 0.1705, 0.8090), ((10, 10), (0, 20), 0.6791, 1.0)],
)
def test_a_difference_is_the_published_one(
    one: tuple[int, int], other: tuple[int, int], low: float, high: float
) -> None:
    found = proportion_difference(proportion(*one), proportion(*other))
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)
    assert found.value == pytest.approx(one[0] / one[1] - other[0] / other[1])


def test_a_mean_over_folds_is_wider_than_folds_that_shared_nothing() -> None:
    values = [0.80, 0.82, 0.78, 0.81, 0.79]
    found = mean_over_folds(values)
    naive = 2.776 * np.std(values, ddof=1) / np.sqrt(5)  # t of 4 degrees of freedom
    assert found.value == pytest.approx(0.80)
    # 1/5 + 1/4 in place of 1/5.
    assert found.high - found.value == pytest.approx(naive * np.sqrt(0.45 / 0.2), rel=1e-3)
    assert found.value - found.low == pytest.approx(found.high - found.value)


def test_one_fold_has_no_interval() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        mean_over_folds([0.8])
