"""Two models on the same rows: is one better, or do they only differ by chance?"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from scipy.stats import binomtest  # type: ignore[import-untyped]

from artifact.manifest import Estimate
from training.errors import EvaluationInvalid
from training.evaluate import evaluate, paired_accuracy_difference
from training.intervals import proportion

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


class Discordance(BaseModel):
    """Rows that only one of two models gets right, and the chance of a split at least as uneven (McNemar 1947).

    The p-value is the exact two-sided binomial one, right for few discordant rows and quick for many.
    """

    model_config = ConfigDict(frozen=True)

    both_right: int
    only_first_right: int
    only_second_right: int
    both_wrong: int
    p_value: float


class SourceComparison(BaseModel):
    """The accuracy of both on the rows of one source, and the first minus the second, resampled in pairs."""

    model_config = ConfigDict(frozen=True)

    name: str
    rows: int
    first: Estimate
    second: Estimate
    difference: Estimate


class Comparison(BaseModel):
    """`first` minus `second` on `rows` rows; differences resampled in pairs, so that what both share cancels out."""

    model_config = ConfigDict(frozen=True)

    first: str
    second: str
    rows: int
    first_metrics: dict[str, Estimate]
    second_metrics: dict[str, Estimate]
    accuracy_difference: Estimate
    label_agreement: float
    mcnemar: Discordance
    sources: tuple[SourceComparison, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """In words: who is shown to be better, if anybody is."""
        if self.accuracy_difference.low > 0 or self.accuracy_difference.high < 0:
            better = self.first if self.accuracy_difference.value > 0 else self.second
            return f"{better} is more accurate on these rows"
        return "neither is shown to be more accurate: the interval of the difference holds 0"


def compare(
    names: tuple[str, str],
    scores: tuple[Floats, Floats],
    labels: Labels,
    label_names: Sequence[str],
    *,
    sources: Sequence[str] = (),
    warnings: Sequence[str] = (),
    seed: int = 0,
) -> Comparison:
    """Compare two arrays of probabilities, shape (rows, labels) each with the same label order.

    `sources` names that of each row, where several were joined.
    """
    first, second = scores
    return Comparison(
        first=names[0],
        second=names[1],
        rows=len(labels),
        first_metrics=evaluate(first, labels, label_names, seed=seed).metrics,
        second_metrics=evaluate(second, labels, label_names, seed=seed).metrics,
        accuracy_difference=paired_accuracy_difference(first, second, labels, seed=seed),
        label_agreement=float((first.argmax(axis=1) == second.argmax(axis=1)).mean()),
        mcnemar=discordance(first.argmax(axis=1) == labels, second.argmax(axis=1) == labels),
        sources=tuple(_by_source(scores, labels, np.array(sources), seed)) if sources else (),
        warnings=tuple(warnings),
    )


def _by_source(
    scores: tuple[Floats, Floats], labels: Labels, sources: npt.NDArray[np.str_], seed: int
) -> Iterator[SourceComparison]:
    for name in sorted(set(sources.tolist())):
        rows = sources == name
        truth = labels[rows]
        one, other = (each[rows] for each in scores)
        first, second = (proportion(int((each.argmax(axis=1) == truth).sum()), len(truth)) for each in (one, other))
        difference = paired_accuracy_difference(one, other, truth, seed=seed)
        yield SourceComparison(name=name, rows=len(truth), first=first, second=second, difference=difference)


def discordance(first_right: npt.NDArray[np.bool_], second_right: npt.NDArray[np.bool_]) -> Discordance:
    """McNemar's test over which rows each model gets right, shape (rows,) each."""
    only_first = int((first_right & ~second_right).sum())
    only_second = int((~first_right & second_right).sum())
    discordant = only_first + only_second
    return Discordance(
        both_right=int((first_right & second_right).sum()),
        only_first_right=only_first,
        only_second_right=only_second,
        both_wrong=int((~first_right & ~second_right).sum()),
        p_value=float(binomtest(only_first, discordant).pvalue) if discordant else 1.0,
    )


def check_labels(own: Sequence[str], wanted: Sequence[str]) -> None:
    """Raises EvaluationInvalid unless both are the same labels, in whatever order."""
    if sorted(own) != sorted(wanted):
        raise EvaluationInvalid(f"--against: its labels are {', '.join(own)}, not {', '.join(wanted)}")


def in_order(scores: Floats, own: Sequence[str], wanted: Sequence[str]) -> Floats:
    """Columns of `scores`, labelled `own`, in the order `wanted`, which holds the same labels."""
    return scores[:, [list(own).index(label) for label in wanted]]
