"""Accuracy where it may differ: by length, by the values of a column, by a condition. The worst slice is named."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from artifact.manifest import Estimate, SliceResult
from training.errors import EvaluationInvalid
from training.expressions import number, parse_condition
from training.intervals import proportion, proportion_difference

LENGTH: Final = "length"
EXPRESSION: Final = "expression"
# A slice of fewer rows has an interval too wide to call it the worst.
MIN_ROWS: Final = 30
_BANDS: Final = 4
_MOST_VALUES: Final = 20
_EMPTY: Final = "(empty)"
_OTHERS: Final = "(other values)"

Mask = npt.NDArray[np.bool_]
Columns = Mapping[str, Sequence[object]]


@dataclass(frozen=True, slots=True)
class Slice:
    """Some of the rows: `rows` is a mask of shape (rows,)."""

    by: str
    name: str
    rows: Mask


def length_slices(tokens: Sequence[int]) -> list[Slice]:
    """Four bands of about the same number of rows, by tokens as served."""
    return _bands(LENGTH, np.asarray(tokens, dtype=np.float64), "{} to {} tokens", "{} tokens")


def column_slices(column: str, values: Sequence[object]) -> list[Slice]:
    """One slice per value; of numbers with many values bands, of texts with many the most frequent and the rest."""
    texts = np.array([_EMPTY if value is None or value == "" else str(value) for value in values], dtype=object)
    counts = Counter(texts.tolist())
    if len(counts) > _MOST_VALUES:
        numbers = np.array([number(value) for value in values])
        if np.isfinite(numbers).all():
            return _bands(column, numbers, "{} to {}", "{}")
        frequent = {value for value, _ in counts.most_common(_MOST_VALUES - 1)}
        texts = np.array([text if text in frequent else _OTHERS for text in texts], dtype=object)
    return [Slice(column, str(name), texts == name) for name in dict.fromkeys(sorted(texts.tolist()))]


def expression_slice(source: str, columns: Columns, rows: int) -> Slice:
    """The rows that a condition holds for; `NAME: CONDITION` gives it a name. Raises EvaluationInvalid."""
    name, mark, condition = source.partition(":")
    named = bool(mark) and name.strip().replace(" ", "").replace("-", "").replace("_", "").isalnum()
    title, condition = (name.strip(), condition) if named else (source.strip(), source)
    holds = parse_condition(condition, columns)
    names = list(columns)
    records = (dict(zip(names, cells, strict=True)) for cells in zip(*(columns[each] for each in names), strict=True))
    mask = np.fromiter((holds(record) for record in records), dtype=np.bool_, count=rows)
    if not mask.any():
        raise EvaluationInvalid(f"slice {title!r}: holds for none of the {rows:,} rows")
    return Slice(EXPRESSION, title, mask)


def measure(slices: Sequence[Slice], right: Mask) -> tuple[SliceResult, ...]:
    """Accuracy of each slice, and its difference from all other rows. `right`, shape (rows,): answered right."""
    return tuple(
        SliceResult(
            by=each.by,
            name=each.name,
            rows=int(each.rows.sum()),
            accuracy=_accuracy(right[each.rows]),
            difference=None
            if each.rows.all()
            else proportion_difference(_accuracy(right[each.rows]), _accuracy(right[~each.rows])),
        )
        for each in slices
        if each.rows.any()
    )


def worst(results: Sequence[SliceResult]) -> SliceResult | None:
    """The slice with the lowest accuracy among those with at least MIN_ROWS rows and some rows outside."""
    eligible = [each for each in results if each.rows >= MIN_ROWS and each.difference is not None]
    return min(eligible, key=lambda each: each.accuracy.value, default=None)


def _accuracy(right: Mask) -> Estimate:
    return proportion(int(right.sum()), len(right))


def _bands(by: str, values: npt.NDArray[np.float64], span: str, single: str) -> list[Slice]:
    """Cut at quantiles that occur among the values, so that no band is empty; equal values stay together."""
    cuts = np.unique(np.quantile(values, np.arange(1, _BANDS) / _BANDS, method="inverted_cdf"))
    band = np.searchsorted(cuts, values, side="left")
    found = []
    for index in np.unique(band):
        mask = band == index
        low, high = values[mask].min(), values[mask].max()
        name = single.format(f"{low:g}") if low == high else span.format(f"{low:g}", f"{high:g}")
        found.append(Slice(by, name, mask))
    return found
