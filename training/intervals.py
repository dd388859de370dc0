"""95% intervals in closed form, for plain proportions and for a mean over folds."""

import math
from collections.abc import Sequence
from statistics import fmean, variance

from scipy.stats import norm, t  # type: ignore[import-untyped]

from artifact.manifest import Estimate

_QUANTILE = 0.975


def proportion(successes: int, rows: int) -> Estimate:
    """A share of `rows` with its score interval (Wilson 1927), which keeps its coverage for few rows and near 0 or 1.

    Raises ValueError without rows.
    """
    if rows < 1 or not 0 <= successes <= rows:
        raise ValueError(f"{successes} of {rows} is no proportion")
    share, z = successes / rows, float(norm.ppf(_QUANTILE))
    middle = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    # The ends belong to the interval at 0 and at 1; rounding must not leave them out.
    return Estimate(value=share, low=min(share, max(0.0, middle - half)), high=max(share, min(1.0, middle + half)))


def proportion_difference(one: Estimate, other: Estimate) -> Estimate:
    """The difference of two independent proportions (Newcombe 1998, method 10), from their score intervals."""
    difference = one.value - other.value
    below = math.hypot(one.value - one.low, other.high - other.value)
    above = math.hypot(one.high - one.value, other.value - other.low)
    return Estimate(value=difference, low=difference - below, high=difference + above)


def mean_over_folds(values: Sequence[float]) -> Estimate:
    """The mean of k folds, with the corrected interval of Nadeau & Bengio 2003.

    Folds share most of their training rows, so their plain variance is too small: it is multiplied by
    1/k + 1/(k - 1), the latter being test rows over training rows, instead of by 1/k. Raises ValueError below 2 folds.
    """
    folds = len(values)
    if folds < 2:
        raise ValueError("a mean over folds needs at least 2 folds")
    half = float(t.ppf(_QUANTILE, folds - 1)) * math.sqrt((1 / folds + 1 / (folds - 1)) * variance(values))
    mean = fmean(values)
    return Estimate(value=mean, low=mean - half, high=mean + half)
