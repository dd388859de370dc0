"""Which rows of a recipe are held out together: by the hash of their own text, or by where they come from.

Only the train and validation splits take part: the test split stays unseen, so that what is chosen by
cross-validation can still be tested. Folds that are numbered follow from bytes of the hash that decide nothing else.
So two recipes that share rows hold out the same ones in the same fold, whatever else each of them learns from, and can
be compared on them in pairs. Folds by source leave a whole kind of text out: what the model makes of texts nobody
showed it, once for each kind (scikit-learn's LeaveOneGroupOut with the source as the group).
"""

import hashlib
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from training.errors import DataInvalid, EvaluationInvalid
from training.prepare import Prepared, Split
from training.recipe import Recipe

LEAST, MOST = 2, 20
_FOLD_BYTES: Final = slice(16, 24)
_VALIDATION_BYTES: Final = slice(24, 32)

Folds = int | Literal["sources"]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class FoldPlan:
    """Which of the rows are held out by which fold, and which choose its checkpoint. Shapes (rows,).

    `names` says what each fold holds out: its number, or a source.
    """

    folds: Folds
    names: tuple[str, ...]
    pool: Split
    fold: npt.NDArray[np.int64]
    validation: Mask

    @classmethod
    def of(cls, prepared: Prepared, recipe: Recipe, folds: Folds) -> "FoldPlan":
        """Raises EvaluationInvalid for too few or too many folds or sources, DataInvalid when one lacks a label."""
        check_folds(folds)
        pool = _joined(prepared.train, prepared.validation)
        digests = [hashlib.sha256(text.encode()).digest() for text in pool.texts]
        share = recipe.split.validation / (recipe.split.validation + recipe.split.train)
        names, fold = _by_source(pool) if folds == "sources" else _by_hash(digests, folds)
        validation = np.array([int.from_bytes(digest[_VALIDATION_BYTES], "big") / 2**64 < share for digest in digests])
        plan = cls(folds, names, pool, fold, validation)
        _check_labels(plan, recipe)
        return plan

    def masks(self, fold: int) -> tuple[Mask, Mask, Mask]:
        """Rows to learn from, to choose by and to measure on."""
        held = self.fold == fold
        return ~held & ~self.validation, ~held & self.validation, held

    def key(self, fold: int) -> tuple[object, ...]:
        """JSON values that tell this fold from every other of the same rows."""
        return (self.folds, fold, *(self.pool.sources if self.folds == "sources" else ()))

    def lacking(self, name: str, what: str) -> str:
        """A sentence about one fold that cannot be."""
        if self.folds == "sources":
            return f"--folds sources, without {name}: {what}"
        return f"fold {name} of {self.folds}: {what}; take fewer folds or more rows"


def parse_folds(text: str) -> Folds:
    """`sources`, or a number of folds. Raises EvaluationInvalid."""
    if text == "sources":
        return "sources"
    try:
        return int(text)
    except ValueError:
        raise EvaluationInvalid(f"--folds {text}: must be a number from {LEAST} to {MOST}, or sources") from None


def check_folds(folds: Folds) -> None:
    """Raises EvaluationInvalid for a number of folds that cannot be."""
    if folds != "sources" and not LEAST <= folds <= MOST:
        raise EvaluationInvalid(f"--folds {folds}: must be from {LEAST} to {MOST}")


def _by_hash(digests: list[bytes], folds: int) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    fold = np.array([int.from_bytes(digest[_FOLD_BYTES], "big") % folds for digest in digests])
    return tuple(str(number + 1) for number in range(folds)), fold


def _by_source(pool: Split) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    names = sorted(set(pool.sources))
    if len(names) < LEAST:
        raise EvaluationInvalid("--folds sources: needs two sources or more under data.sources")
    place = {name: number for number, name in enumerate(names)}
    return tuple(names), np.array([place[name] for name in pool.sources])


def _joined(one: Split, other: Split) -> Split:
    ratings = np.concatenate(
        [np.full(len(split), np.nan) if split.ratings is None else split.ratings for split in (one, other)]
    )
    return Split(
        one.texts + other.texts,
        np.concatenate([one.labels, other.labels]),
        None if np.isnan(ratings).all() else ratings,
        one.sources + other.sources,
    )


def _check_labels(plan: FoldPlan, recipe: Recipe) -> None:
    """A fold without a label cannot be learned from or measured on."""
    for fold, name in enumerate(plan.names):
        for mask, part in zip(plan.masks(fold), ("training rows", "validation rows", "held-out rows"), strict=True):
            absent = set(range(len(recipe.labels))) - set(plan.pool.labels[mask].tolist())
            if absent:
                missing = ", ".join(recipe.labels[index] for index in sorted(absent))
                raise DataInvalid(plan.lacking(name, f"its {int(mask.sum())} {part} hold no row labelled {missing}"))
