"""The arithmetic of the measurements: ratios to a reference that moves, medians with their spread, slopes."""

import statistics
from collections.abc import Sequence
from typing import TypedDict


class Spread(TypedDict):
    """A median, the range it came from, and how many runs that was."""

    median: float
    low: float
    high: float
    runs: int


def spread(values: Sequence[float]) -> Spread:
    """Raises ValueError for no values."""
    if not values:
        raise ValueError("no runs to summarize")
    return Spread(median=statistics.median(values), low=min(values), high=max(values), runs=len(values))


def sandwiched(value: float, before: float, after: float) -> float:
    """`value` over the mean of the references measured right before and right after it.

    The speed of a shared machine's cores drifts; two references around a run cancel what is linear in the drift.
    """
    return value / ((before + after) / 2)


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest-rank percentile: the smallest value with at least `percent` % of all at or below it."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1]


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Least-squares slope of values over times, in units of value per unit of time; 0 for fewer than two points."""
    if len(times) < 2:
        return 0.0
    return statistics.linear_regression(times, values).slope


def settled_slope(times: Sequence[float], values: Sequence[float], *, skip: float = 0.3) -> float:
    """The slope without the first part of the run, in which pools and arenas still grow to their size."""
    if not times:
        return 0.0
    start = times[0] + skip * (times[-1] - times[0])
    kept = [(time, value) for time, value in zip(times, values, strict=True) if time >= start]
    return slope([time for time, _ in kept], [value for _, value in kept])
