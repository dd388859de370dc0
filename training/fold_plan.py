"""Which rows of a recipe are held out together: by the hash of their own text, or by where they come from.

Only the train and validation splits take part: the test split stays unseen, so that what is chosen by
cross-validation can still be tested. Folds that are numbered follow from bytes of the hash that decide nothing else.
So two recipes that share rows hold out the same ones in the same fold, whatever else each of them learns from, and can
be compared on them in pairs. Folds by source leave a whole kind of text out: what the model makes of texts nobody
showed it, once for each kind (scikit-learn's LeaveOneGroupOut with the source as the group). A second recipe can be
asked about the same rows, though it has other sources, or one alone.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from training.errors import DataInvalid, EvaluationInvalid
from training.prepare import Prepared, Split
from training.recipe import LEAST_FOLDS, MOST_FOLDS, Recipe

NOTHING: Final = "(nothing)"
_FOLD_BYTES: Final = slice(16, 24)
_VALIDATION_BYTES: Final = slice(24, 32)

Folds = int | Literal["sources"]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class FoldPlan:
    """Which of the rows are held out by which fold, and which choose its checkpoint. Shapes (rows,).

    `names` says what each fold holds out: its number, a source, or NOTHING of the recipe itself. Rows of fold -1 are
    always learned from and never asked about; those that are not `own` are another recipe's, only asked about.
    """

    folds: Folds
    names: tuple[str, ...]
    pool: Split
    fold: npt.NDArray[np.int64]
    validation: Mask
    own: Mask
    beside_another: bool = False

    @classmethod
    def of(cls, prepared: Prepared, recipe: Recipe, folds: Folds) -> "FoldPlan":
        """Raises EvaluationInvalid for too few or too many folds or sources, DataInvalid when one lacks a label."""
        check_folds(folds)
        pool = _joined(prepared.train, prepared.validation)
        names, fold = _by_source(pool) if folds == "sources" else _by_hash(pool, folds)
        plan = cls(folds, names, pool, fold, _validation(pool, recipe), np.full(len(pool), True))
        _check_labels(plan, recipe)
        return plan

    @classmethod
    def beside(cls, prepared: Prepared, recipe: Recipe, other: Split) -> "FoldPlan":
        """Each of the other recipe's rows, asked of a model of this one that learned nothing of its source.

        A source that both have is left out here too, and what only the other has, one model of all rows here answers.
        Not asked about are texts that this recipe has among its own rows (but for those of a source left out) or in
        its test split; the source of a recipe that has a single one; and sources only the other has, should their rows
        lack a label. `other` has its labels in the order of `recipe`. Raises as `of`.
        """
        own = _joined(prepared.train, prepared.validation)
        own = replace(own, sources=own.sources or (prepared.name,) * len(own))
        has, known = set(own.sources), {*own.texts, *prepared.test.texts}
        left_out = sorted(has & set(other.sources)) if len(has) > 1 else []
        place = {name: number for number, name in enumerate(left_out)}
        places = np.array([place.get(name, -1 if name in has else len(left_out)) for name in other.sources])
        places[np.array([text in known for text in other.texts])] = -1
        if len(set(other.labels[places == len(left_out)].tolist())) < len(recipe.labels):
            places[places == len(left_out)] = -1
        theirs = np.flatnonzero(places >= 0)
        pool = _joined(own, other.at(theirs))
        plan = cls(
            folds="sources",
            names=(*left_out, *((NOTHING,) if len(left_out) in places else ())),
            pool=pool,
            fold=np.array([*(place.get(name, -1) for name in own.sources), *places[theirs]]),
            validation=_validation(pool, recipe),
            own=np.arange(len(pool)) < len(own),
            beside_another=True,
        )
        _check_labels(plan, recipe)
        return plan

    @property
    def asked(self) -> npt.NDArray[np.int64]:
        """Numbers of the rows that some fold holds out."""
        return np.flatnonzero(self.fold >= 0)

    def masks(self, fold: int) -> tuple[Mask, Mask, Mask]:
        """Rows to learn from, to choose by and to measure on."""
        held = self.fold == fold
        rest = self.own & ~held
        return rest & ~self.validation, rest & self.validation, held

    def key(self, fold: int) -> tuple[object, ...]:
        """JSON values that tell this fold from every other of the same rows."""
        if self.folds != "sources":
            return (self.folds, fold)
        parts = (self.folds, fold, *self.pool.sources)
        if not self.beside_another:
            return parts
        # Which sources are numbered follows from the other recipe, too.
        theirs = (text for text, own in zip(self.pool.texts, self.own, strict=True) if not own)
        return (*parts, "beside", self.names[fold], *theirs)

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
        raise EvaluationInvalid(
            f"--folds {text}: must be a number from {LEAST_FOLDS} to {MOST_FOLDS}, or sources"
        ) from None


def check_folds(folds: Folds) -> None:
    """Raises EvaluationInvalid for a number of folds that cannot be."""
    if folds != "sources" and not LEAST_FOLDS <= folds <= MOST_FOLDS:
        raise EvaluationInvalid(f"--folds {folds}: must be from {LEAST_FOLDS} to {MOST_FOLDS}")


def _validation(pool: Split, recipe: Recipe) -> Mask:
    """The recipe's share of its rows, by their hash."""
    share = recipe.split.validation / (recipe.split.validation + recipe.split.train)
    return np.array([number / 2**64 < share for number in _numbers(pool, _VALIDATION_BYTES)])


def _numbers(pool: Split, place: slice) -> Iterator[int]:
    """Bytes of the hash of each text."""
    return (int.from_bytes(hashlib.sha256(text.encode()).digest()[place], "big") for text in pool.texts)


def _by_hash(pool: Split, folds: int) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    fold = np.array([number % folds for number in _numbers(pool, _FOLD_BYTES)])
    return tuple(str(number + 1) for number in range(folds)), fold


def _by_source(pool: Split) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    names = sorted(set(pool.sources))
    if len(names) < LEAST_FOLDS:
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
