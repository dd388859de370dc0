"""What texts and labels tell about each other: telling words, suspicious labels, and how far two sets lie apart.

Everything here is a bag of words under a logistic regression or less: quick, and wrong often enough that its word is
a hint to look, never a verdict.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.texts import words

Counts = NDArray[np.int64]
Labels = NDArray[np.int64]

MIN_ROWS_PER_LABEL: Final = 5
_FOLDS: Final = 5
_WORDS_SHOWN: Final = 15
_MOST_WORDS: Final = 50_000
# The prior weighs as much as one row in ten.
_PRIOR_SHARE: Final = 0.1
_TELLING_Z: Final = 2.0
_GIVEAWAY_ROWS: Final = 20
_GIVEAWAY_SHARE: Final = 0.02
_GIVEAWAY_PURITY: Final = 0.99
_DRIFT_ROWS: Final = 10_000
_C: Final = 5.0
_LEAST_PASSES: Final = 10
_UPDATES: Final = 200_000


@dataclass(frozen=True, slots=True)
class Telling:
    """A word that tells a group: its z-score, and the rows of the group and of all others that have it."""

    word: str
    z: float
    rows_here: int
    rows_elsewhere: int


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row whose label a model that has not seen it would not give. `row` is an index into what was asked about."""

    row: int
    given: int
    suggested: int
    probability_given: float
    probability_suggested: float


@dataclass(frozen=True, slots=True)
class Suspects:
    """`accuracy` is the model's own, by cross-validation; `rows` are ordered, the surest first."""

    accuracy: float
    rows: tuple[Suspect, ...]


@dataclass(frozen=True, slots=True)
class Apart:
    """How far a second set lies from the first.

    `auc` is how well a classifier tells them apart (Lopez-Paz & Oquab 2017): .5 is chance, None where there was too
    little to tell. `length_distance` is the
    largest difference of the two distributions of characters per text (Kolmogorov-Smirnov), `unknown_words` the share
    of the second set's words that the first never has.
    """

    auc: float | None
    length_distance: float
    unknown_words: float
    first: tuple[Telling, ...]
    second: tuple[Telling, ...]


@dataclass(frozen=True, slots=True)
class Bag:
    """Which text has which word: a sparse matrix of shape (texts, words) of 0 and 1, and the words."""

    has: Any
    words: NDArray[np.object_]


def bag_of(texts: Sequence[str]) -> Bag:
    """The words that at least two texts have, the commonest fifty thousand of them."""
    from sklearn.feature_extraction.text import CountVectorizer

    least = 2 if len(texts) > 1 else 1
    vectorizer = CountVectorizer(analyzer=words, binary=True, min_df=least, max_features=_MOST_WORDS)
    try:
        return Bag(vectorizer.fit_transform(texts).tocsr(), vectorizer.get_feature_names_out())
    except ValueError:  # no word is left: scikit-learn has no other way to say so
        from scipy.sparse import csr_matrix  # type: ignore[import-untyped]

        return Bag(csr_matrix((len(texts), 0), dtype=np.int64), np.array([], dtype=object))


def telling_words(bag: Bag, labels: Labels, label: int) -> tuple[Telling, ...]:
    """The words that tell `label` most, as far as that is more than chance.

    Log-odds ratio with an informative Dirichlet prior (Monroe, Colaresi & Quinn 2008, equations 16 and 22); the prior
    is the frequency of each word in all rows.
    """
    here, elsewhere = _rows_with(bag, labels == label), _rows_with(bag, labels != label)
    total = here + elsewhere
    prior = _PRIOR_SHARE * total
    difference = _log_odds(here + prior) - _log_odds(elsewhere + prior)
    z = difference / np.sqrt(1 / (here + prior) + 1 / (elsewhere + prior))
    best = [place for place in np.argsort(-z, kind="stable")[:_WORDS_SHOWN] if z[place] > _TELLING_Z]
    return tuple(Telling(bag.words[at], float(z[at]), int(here[at]), int(elsewhere[at])) for at in best)


def giveaways(bag: Bag, labels: Labels, label: int) -> tuple[Telling, ...]:
    """Words of a good many rows that all but never stand under another label: perhaps a leak of the label."""
    here, elsewhere = _rows_with(bag, labels == label), _rows_with(bag, labels != label)
    chance = (labels == label).mean() if len(labels) else 1.0
    if chance > 1 - 2 * (1 - _GIVEAWAY_PURITY):
        return ()
    enough = here >= max(_GIVEAWAY_ROWS, _GIVEAWAY_SHARE * (labels == label).sum())
    found = np.flatnonzero(enough & (here >= _GIVEAWAY_PURITY * (here + elsewhere)))
    ordered = sorted(found.tolist(), key=lambda at: -int(here[at]))[:_WORDS_SHOWN]
    return tuple(Telling(bag.words[at], 0.0, int(here[at]), int(elsewhere[at])) for at in ordered)


def find_suspects(bag: Bag, labels: Labels) -> Suspects | None:
    """Rows whose label is doubtful; None where a label has too few rows to be learned in folds.

    Confident learning (Northcutt, Jiang & Chuang 2021): a row is suspicious when a label other than its own is at
    least as probable, out of fold, as that label is on average where it is given.
    """
    present = np.unique(labels)
    if len(present) < 2 or min(np.bincount(labels)[present]) < MIN_ROWS_PER_LABEL or not len(bag.words):
        return None
    probabilities = _out_of_fold(bag, labels)
    own = np.searchsorted(present, labels)
    usual = np.array([probabilities[own == index, index].mean() for index in range(len(present))])
    confident = np.where(probabilities >= usual, probabilities, -1.0)
    suggested = confident.argmax(axis=1)
    doubtful = np.flatnonzero((confident.max(axis=1) >= 0) & (suggested != own))
    margin = probabilities[doubtful, suggested[doubtful]] - probabilities[doubtful, own[doubtful]]
    rows = tuple(
        Suspect(
            row=row,
            given=int(labels[row]),
            suggested=int(present[suggested[row]]),
            probability_given=float(probabilities[row, own[row]]),
            probability_suggested=float(probabilities[row, suggested[row]]),
        )
        for row in doubtful[np.argsort(-margin, kind="stable")].tolist()
    )
    return Suspects(float((probabilities.argmax(axis=1) == own).mean()), rows)


def how_far_apart(first: Sequence[str], second: Sequence[str]) -> Apart:
    """Compare two sets of texts; of each the first ten thousand, so give them in no order that means something."""
    from scipy.stats import ks_2samp  # type: ignore[import-untyped]
    from sklearn.metrics import roc_auc_score

    first, second = first[:_DRIFT_ROWS], second[:_DRIFT_ROWS]
    bag = bag_of([*first, *second])
    side = np.repeat(np.array([0, 1]), [len(first), len(second)])
    if min(len(first), len(second)) < MIN_ROWS_PER_LABEL or not len(bag.words):
        auc = None
    else:
        auc = float(roc_auc_score(side, _out_of_fold(bag, side)[:, 1]))
    known = {word for text in first for word in words(text)}
    theirs = [word for text in second for word in words(text)]
    return Apart(
        auc=auc,
        length_distance=float(ks_2samp(list(map(len, first)), list(map(len, second))).statistic),
        unknown_words=sum(word not in known for word in theirs) / max(1, len(theirs)),
        first=telling_words(bag, side, 0),
        second=telling_words(bag, side, 1),
    )


def _rows_with(bag: Bag, chosen: NDArray[np.bool_]) -> Counts:
    """How many of the chosen texts have each word."""
    found: Counts = np.asarray(bag.has[np.flatnonzero(chosen)].sum(axis=0), dtype=np.int64).ravel()
    return found


def _log_odds(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        odds: NDArray[np.float64] = np.log(rows) - np.log(np.maximum(rows.sum() - rows, np.finfo(float).tiny))
    return odds


def _out_of_fold(bag: Bag, labels: Labels) -> NDArray[np.float64]:
    """Probabilities of shape (texts, labels that occur), each by a model that did not see the text."""
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.linear_model import SGDClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    # Logistic regression by stochastic gradient descent: on labels that no word tells, a solver that insists on
    # converging takes fifty times as long.
    passes = max(_LEAST_PASSES, _UPDATES // len(labels))
    learner = SGDClassifier(loss="log_loss", alpha=1 / (_C * len(labels)), max_iter=passes, tol=None, random_state=0)
    model = make_pipeline(TfidfTransformer(), learner)
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    found: NDArray[np.float64] = cross_val_predict(model, bag.has, labels, cv=folds, method="predict_proba")
    return found
