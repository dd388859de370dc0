"""What a model's scores are worth on held-out rows, each figure with a bootstrap 95% interval. No torch here.

Intervals are percentile intervals (Efron & Tibshirani 1993, chapter 13) over resampled rows. A resample is held as
the count of each row, so that every metric of a thousand resamples is a handful of matrix products.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_curve

from artifact.manifest import Estimate
from training.errors import DataInvalid

CALIBRATION_BINS: Final = 15
RESAMPLES: Final = 2000
_CELLS_AT_ONCE: Final = 4_000_000
_SMALLEST_PROBABILITY: Final = 1e-15

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Metrics = dict[str, Floats]


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """The predictions whose confidence lies in (low, high]: how sure the model was, and how often it was right."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Metrics with intervals, and what the plots need. Rows of the confusion matrix are the true labels."""

    rows: int
    metrics: dict[str, Estimate]
    confusion_matrix: tuple[tuple[int, ...], ...]
    calibration: tuple[CalibrationBin, ...]
    roc: tuple[tuple[float, float], ...]


def softmax(logits: npt.NDArray[np.floating]) -> Floats:
    """Probabilities of shape (rows, labels), in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    result: Floats = powers / powers.sum(axis=1, keepdims=True)
    return result


def evaluate(
    scores: npt.NDArray[np.floating],
    labels: Labels,
    names: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """Measure probabilities of shape (rows, labels) against the true label indices of shape (rows,).

    With two labels precision, recall, F1 and ROC AUC are those of the last label, the positive one; with more they
    are unweighted means over labels (AUC: each against the rest). Log loss is in nats. A label without rows leaves
    `roc_auc` undefined, and out. Raises DataInvalid on an empty or misshapen input.
    """
    _check(scores, labels, names)
    parts = _Parts.of(scores.astype(np.float64), labels)
    everything = parts.metrics(np.ones((1, len(labels))))
    sampled = _concatenated(parts.metrics(weights) for weights in _resamples(len(labels), resamples, seed))
    return Evaluation(
        rows=len(labels),
        metrics={
            name: _estimate(float(value[0]), sampled[name])
            for name, value in everything.items()
            if not np.isnan(value[0])
        },
        confusion_matrix=_confusion_matrix(parts.predicted, labels, len(names)),
        calibration=_calibration(parts),
        roc=_roc(scores, labels),
    )


def paired_accuracy_difference(
    scores: npt.NDArray[np.floating],
    reference_scores: npt.NDArray[np.floating],
    labels: Labels,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Accuracy of `scores` minus accuracy of `reference_scores` on the same rows, resampled together.

    The pairing takes out what both get right or wrong (Koehn 2004 does the same for BLEU).
    """
    right = (scores.argmax(axis=1) == labels).astype(np.float64)
    difference = right - (reference_scores.argmax(axis=1) == labels)
    sampled = [weights @ difference / len(labels) for weights in _resamples(len(labels), resamples, seed)]
    return _estimate(float(difference.mean()), np.concatenate(sampled))


@dataclass(frozen=True, slots=True)
class _Parts:
    """Everything about the rows that does not change between resamples."""

    labels: Labels
    predicted: Labels
    confidence: Floats
    bins: Labels
    loss: Floats
    true_is: Floats
    predicted_is: Floats
    areas: tuple[Callable[[Floats], Floats], ...]

    @classmethod
    def of(cls, scores: Floats, labels: Labels) -> "_Parts":
        count = scores.shape[1]
        predicted = scores.argmax(axis=1)
        confidence = scores.max(axis=1)
        classes = range(count) if count > 2 else range(1, 2)
        chosen = np.take_along_axis(scores, labels[:, None], axis=1)[:, 0]
        return cls(
            labels=labels,
            predicted=predicted,
            confidence=confidence,
            bins=np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1),
            loss=-np.log(np.clip(chosen, _SMALLEST_PROBABILITY, 1.0)),
            true_is=np.stack([labels == label for label in classes], axis=1).astype(np.float64),
            predicted_is=np.stack([predicted == label for label in classes], axis=1).astype(np.float64),
            areas=tuple(_area_under_roc(scores[:, label], labels == label) for label in classes),
        )

    def metrics(self, weights: Floats) -> Metrics:
        """Every metric for every row of `weights`, shape (resamples, rows): arrays of shape (resamples,)."""
        total = weights.sum(axis=1)
        hits = weights @ (self.true_is * self.predicted_is)
        predicted, true = weights @ self.predicted_is, weights @ self.true_is
        return {
            "accuracy": weights @ (self.predicted == self.labels) / total,
            "precision": _ratio(hits, predicted).mean(axis=1),
            "recall": _ratio(hits, true).mean(axis=1),
            "f1": _ratio(2 * hits, predicted + true).mean(axis=1),
            "roc_auc": np.stack([area(weights) for area in self.areas]).mean(axis=0),
            "log_loss": weights @ self.loss / total,
            "calibration_error": self._calibration_error(weights),
        }

    def _calibration_error(self, weights: Floats) -> Floats:
        """Expected calibration error (Guo et al. 2017): 15 equal-width bins of the top score.

        Resampling adds noise to every bin, so the interval sits somewhat above the plain value.
        """
        gap = (self.predicted == self.labels) - self.confidence
        in_bin = self.bins[:, None] == np.arange(CALIBRATION_BINS)
        result: Floats = np.abs(weights @ (in_bin * gap[:, None])).sum(axis=1) / weights.sum(axis=1)
        return result


def _area_under_roc(scores: Floats, positive: npt.NDArray[np.bool_]) -> Callable[[Floats], Floats]:
    """Weights (resamples, rows) -> area (resamples,): the chance that a positive row outranks a negative one.

    Ties count one half (Hanley & McNeil 1982). A resample without both kinds has no area: NaN.
    """
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    is_positive = positive[order].astype(np.float64)

    def area(weights: Floats) -> Floats:
        sorted_weights = weights[:, order]
        positives = np.add.reduceat(sorted_weights * is_positive, starts, axis=1)
        negatives = np.add.reduceat(sorted_weights * (1 - is_positive), starts, axis=1)
        below = np.cumsum(negatives, axis=1) - negatives / 2
        pairs = positives.sum(axis=1) * negatives.sum(axis=1)
        result: Floats = np.divide(
            (positives * below).sum(axis=1), pairs, out=np.full(len(weights), np.nan), where=pairs > 0
        )
        return result

    return area


def _ratio(part: Floats, whole: Floats) -> Floats:
    """Quotients, 0 where there is nothing to divide by (as scikit-learn's zero_division=0)."""
    result: Floats = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return result


def _resamples(rows: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Counts of each row in each resample, shape (some, rows), a bounded number of cells at a time."""
    rng = np.random.default_rng(seed)
    at_once = max(1, min(resamples, _CELLS_AT_ONCE // rows))
    for start in range(0, resamples, at_once):
        some = min(at_once, resamples - start)
        drawn = rng.integers(rows, size=(some, rows)) + rows * np.arange(some)[:, None]
        yield np.bincount(drawn.ravel(), minlength=some * rows).reshape(some, rows).astype(np.float64)


def _concatenated(parts: Iterator[Metrics]) -> Metrics:
    collected = list(parts)
    return {name: np.concatenate([part[name] for part in collected]) for name in collected[0]}


def _estimate(value: float, sampled: Floats) -> Estimate:
    low, high = np.nanpercentile(sampled, [2.5, 97.5])
    return Estimate(value=value, low=float(low), high=float(high))


def _check(scores: npt.NDArray[np.floating], labels: Labels, names: Sequence[str]) -> None:
    if len(labels) == 0:
        raise DataInvalid("nothing to evaluate: no rows")
    if scores.shape != (len(labels), len(names)):
        raise DataInvalid(f"scores of shape {scores.shape} for {len(labels)} rows and {len(names)} labels")
    if not np.isfinite(scores).all():
        raise DataInvalid("the model's scores are not all finite numbers")


def _confusion_matrix(predicted: Labels, labels: Labels, count: int) -> tuple[tuple[int, ...], ...]:
    cells = np.bincount(labels * count + predicted, minlength=count * count).reshape(count, count)
    return tuple(tuple(int(cell) for cell in row) for row in cells)


def _calibration(parts: _Parts) -> tuple[CalibrationBin, ...]:
    """The bins that hold at least one row."""
    right = parts.predicted == parts.labels
    return tuple(
        CalibrationBin(
            low=number / CALIBRATION_BINS,
            high=(number + 1) / CALIBRATION_BINS,
            count=int((parts.bins == number).sum()),
            confidence=float(parts.confidence[parts.bins == number].mean()),
            accuracy=float(right[parts.bins == number].mean()),
        )
        for number in np.unique(parts.bins).tolist()
    )


def _roc(scores: npt.NDArray[np.floating], labels: Labels) -> tuple[tuple[float, float], ...]:
    """(false, true positive rate) from (0, 0) to (1, 1); empty with more than two labels or one kind of row."""
    if scores.shape[1] != 2 or len(np.unique(labels)) < 2:
        return ()
    false_rate, true_rate, _ = roc_curve(labels, scores[:, 1])
    return tuple(zip(false_rate.tolist(), true_rate.tolist(), strict=True))


def as_plain(metrics: Mapping[str, Estimate]) -> dict[str, float]:
    """The values alone, without their intervals."""
    return {name: estimate.value for name, estimate in metrics.items()}
