"""Clean rows, drop duplicates, and only then divide them into train, validation and test.

Where a row goes is decided by the SHA-256 of its own normalised text alone, so adding rows never moves another row
from one split to another: it can at most make it a duplicate. The price is that shares and label balance hold in
expectation, not to the row; `Prepared.balance_p_value` is the check that they came out as chance allows.

Near duplicates (training/duplicates.py) go before the split is used, as Lee et al. 2022 advise. Of two, the one in the
split nearer to the test survives, so new training rows never change the test split. Sampling comes last and concerns
training rows alone: validation and test keep the labels in the shares they come in.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from rich.progress import Progress
from scipy.stats import chi2_contingency  # type: ignore[import-untyped]

from artifact.manifest import TextPreprocessing
from inference.tasks.pii import count_pii
from inference.tasks.transforms import Cleaner
from training.data import Row, Table
from training.duplicates import find_twins
from training.errors import DataInvalid
from training.recipe import PrepareSection, Recipe, SplitFractions

MIN_ROWS: Final = 40
# Leaving these out of a sentence turns it round.
_NEGATIONS: Final = frozenset(
    {"no", "nor", "not", "never", "none", "nobody", "nothing", "nowhere", "neither", "without"}
    | {"cannot", "cant", "couldnt", "hasnt"}
)

SplitName = Literal["test", "validation", "train"]
_SURVIVAL_ORDER: Final[tuple[SplitName, ...]] = ("test", "validation", "train")


@dataclass(frozen=True, slots=True)
class Split:
    """Texts (cleaned), labels of shape (n,), and ratings of shape (n,) where the data has them, NaN for a row without.

    `sources` names the source of each text where several were joined.
    """

    texts: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    ratings: npt.NDArray[np.float64] | None
    sources: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    def at(self, rows: npt.NDArray[np.int64]) -> "Split":
        """The rows of these numbers, in their order."""
        return Split(
            texts=tuple(self.texts[row] for row in rows),
            labels=self.labels[rows],
            ratings=None if self.ratings is None else self.ratings[rows],
            sources=tuple(self.sources[row] for row in rows) if self.sources else (),
        )

    def relabelled(self, own: Sequence[str], wanted: Sequence[str]) -> "Split":
        """The same rows with labels that are numbered as in `wanted`, which holds the names of `own`."""
        return replace(self, labels=np.array([list(wanted).index(name) for name in own])[self.labels])


@dataclass(frozen=True, slots=True)
class Prepared:
    """What training starts from. `counts` tells what became of every row, in the order it happened.

    `transformed` counts the rows that each cleaning step changed, `masked` the personal data found, by kind.
    """

    name: str
    licence: str
    origin: str
    labels: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    counts: dict[str, int]
    fingerprint: str
    balance_p_value: float
    transformed: dict[str, int] = field(default_factory=dict)
    masked: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Clean:
    """A row that is still in, with the digest of its cleaned text and the split that follows from it."""

    text: str
    label: int
    rating: float | None
    digest: bytes
    split: SplitName
    source: str


@dataclass(slots=True)
class Trace:
    """What happened on the way, for who wants to see it: it outlives a refusal.

    `near` are pairs of a row that was dropped and the one it resembles; `conflicting` texts with several labels.
    """

    counts: dict[str, int] = field(default_factory=dict)
    conflicting: list[str] = field(default_factory=list)
    near: list[tuple[Clean, Clean]] = field(default_factory=list)


def prepare(table: Table, recipe: Recipe, progress: Progress, trace: Trace | None = None) -> Prepared:
    """Clean, drop, divide; the order of rows does not matter. Raises DataInvalid when too little is left."""
    trace = trace or Trace()
    counts = trace.counts
    counts["read"] = len(table.rows)
    cleaning = Cleaning(recipe.prepare)
    rows = _labelled(_cleaned(table.rows, cleaning, counts, progress), counts)
    clean = _without_exact_duplicates(rows, recipe.split, trace)
    clean = _at_most(clean, recipe.max_rows, counts)
    clean = _without_near_duplicates(clean, trace, progress)
    clean = _sampled(clean, recipe.prepare, counts)
    splits = {name: [row for row in clean if row.split == name] for name in _SURVIVAL_ORDER}
    counts |= {"kept": len(clean), **{name: len(splits[name]) for name in ("train", "validation", "test")}}
    _check_enough(splits, recipe.labels, counts)
    return Prepared(
        name=table.name,
        licence=table.licence,
        origin=table.origin,
        labels=recipe.labels,
        train=_split(splits["train"]),
        validation=_split(splits["validation"]),
        test=_split(splits["test"]),
        counts=counts,
        fingerprint=_fingerprint(clean, recipe),
        balance_p_value=_balance_p_value(splits, len(recipe.labels)),
        transformed=dict(cleaning.transformed),
        masked=dict(cleaning.masked),
    )


class Cleaning:
    """The recipe's cleaning steps, counting what they do."""

    def __init__(self, section: PrepareSection) -> None:
        self._clean = Cleaner(section.transforms, stop_words(section))
        self.transformed: Counter[str] = Counter(dict.fromkeys(section.transforms, 0))
        self.masked: Counter[str] = Counter()

    def __call__(self, text: str) -> str:
        """As the service will clean it; lone surrogates, which no tokenizer takes, become U+FFFD."""
        if not text.isascii():
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        changes: dict[str, str] = {}
        cleaned = self._clean(text, lambda name, before: changes.update({name: changes.get(name, before)}))
        self.transformed.update(changes.keys())
        if "pii" in changes:
            self.masked.update(count_pii(changes["pii"]))
        return cleaned


def spread(rows: int, most: int) -> npt.NDArray[np.int64]:
    """Numbers of at most `most` of `rows` rows, spread evenly from the first to the last; shape (chosen,)."""
    return np.linspace(0, rows - 1, min(most, rows)).astype(np.int64)


def cleaned_as(section: PrepareSection, preprocessing: TextPreprocessing) -> TextPreprocessing:
    """`preprocessing` with the recipe's cleaning steps in it, so that the service does the same."""
    if not section.transforms:
        return preprocessing
    steps = {"normalization": "transforms", "transforms": section.transforms, "stop_words": stop_words(section)}
    return preprocessing.model_copy(update=steps)


def stop_words(section: PrepareSection) -> tuple[str, ...]:
    """The words that the step `stop_words` drops; none where the recipe has no such step."""
    if "stop_words" not in section.transforms:
        return ()
    if section.stop_words != "english":
        return section.stop_words
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return tuple(sorted(ENGLISH_STOP_WORDS - _NEGATIONS))


def split_of(digest: bytes, fractions: SplitFractions) -> SplitName:
    """The split of a text whose SHA-256 is `digest`: its first 8 bytes, read as a fraction, fall into one share."""
    fraction = int.from_bytes(digest[:8], "big") / 2**64
    if fraction < fractions.test:
        return "test"
    return "validation" if fraction < fractions.test + fractions.validation else "train"


def _cleaned(rows: Sequence[Row], cleaning: Cleaning, counts: dict[str, int], progress: Progress) -> list[Row]:
    kept = []
    for row in progress.track(rows, description="Cleaning"):
        text = cleaning(row.text)
        if text == row.text:
            kept.append(row)  # not a copy: there may be a million of them
        elif text:
            kept.append(Row(text, row.label, row.rating, row.pinned_to_test, row.source))
    counts["empty"] = len(rows) - len(kept)
    return kept


def _labelled(rows: list[Row], counts: dict[str, int]) -> list[Row]:
    kept = [row for row in rows if row.label is not None]
    counts["neutral"] = len(rows) - len(kept)
    return kept


def _without_exact_duplicates(rows: list[Row], fractions: SplitFractions, trace: Trace) -> list[Clean]:
    """One row per text. A text that carries two labels teaches nothing and is dropped altogether."""
    groups: dict[str, Row | list[Row]] = {}
    for row in rows:
        found = groups.setdefault(row.text, row)
        if isinstance(found, list):
            found.append(row)
        elif found is not row:
            groups[row.text] = [found, row]
    kept, conflicting = [], 0
    for text, found in groups.items():
        group = found if isinstance(found, list) else [found]
        if any(row.label != group[0].label for row in group):
            conflicting += len(group)
            trace.conflicting.append(text)
        else:
            kept.append(_merged(text, group, fractions))
    trace.counts["conflicting"] = conflicting
    trace.counts["exact_duplicates"] = len(rows) - conflicting - len(kept)
    return kept


def _merged(text: str, group: Sequence[Row], fractions: SplitFractions) -> Clean:
    digest = hashlib.sha256(text.encode()).digest()
    ratings = [row.rating for row in group if row.rating is not None]
    pinned = any(row.pinned_to_test for row in group)
    label = group[0].label
    assert label is not None  # noqa: S101 - neutral rows are gone by now
    return Clean(
        text=text,
        label=label,
        rating=math.fsum(ratings) / len(ratings) if ratings else None,
        digest=digest,
        split="test" if pinned else split_of(digest, fractions),
        source=min(row.source for row in group),
    )


def _at_most(rows: list[Clean], limit: int | None, counts: dict[str, int]) -> list[Clean]:
    """The `limit` rows with the smallest bytes 8..16 of their digest: independent of the split, stable under growth."""
    kept = rows if limit is None else sorted(rows, key=lambda row: row.digest[8:16])[:limit]
    counts["over_max_rows"] = len(rows) - len(kept)
    return kept


def _without_near_duplicates(rows: list[Clean], trace: Trace, progress: Progress) -> list[Clean]:
    """Keep a row unless one before it that was kept is nearly the same; test rows come first."""
    rows.sort(key=lambda row: (_SURVIVAL_ORDER.index(row.split), row.digest))
    task = progress.add_task("Dropping near duplicates", total=len(rows))
    twins = find_twins([row.text for row in rows], advance=lambda done: progress.update(task, completed=done))
    progress.remove_task(task)
    trace.near += [(rows[index], rows[twins[index]]) for index in np.flatnonzero(twins >= 0)]
    trace.counts["near_duplicates"] = len(trace.near)
    return [row for row, twin in zip(rows, twins, strict=True) if twin < 0]


def _sampled(rows: list[Clean], section: PrepareSection, counts: dict[str, int]) -> list[Clean]:
    """Of each label the allowed number of training rows, chosen as `_at_most` does; other splits stay whole."""
    train = Counter(row.label for row in rows if row.split == "train")
    limits = [section.max_rows_per_label] if section.max_rows_per_label else []
    limits += [min(train.values())] if section.balanced and train else []
    if not limits:
        return rows
    left = Counter(dict.fromkeys(train, min(limits)))
    kept = [row for row in rows if row.split != "train"]
    for row in sorted((row for row in rows if row.split == "train"), key=lambda row: row.digest[8:16]):
        if left[row.label]:
            left[row.label] -= 1
            kept.append(row)
    counts["sampled_out"] = len(rows) - len(kept)
    return sorted(kept, key=lambda row: (_SURVIVAL_ORDER.index(row.split), row.digest))


def _check_enough(splits: dict[SplitName, list[Clean]], labels: Sequence[str], counts: dict[str, int]) -> None:
    if counts["kept"] < MIN_ROWS:
        raise DataInvalid(f"only {counts['kept']} of {counts['read']} rows are usable; at least {MIN_ROWS} are needed")
    present = {row.label for rows in splits.values() for row in rows}
    if len(present) == 1:
        raise DataInvalid(f"every usable row has the label {labels[present.pop()]!r}; a classifier needs two labels")
    for name, rows in splits.items():
        absent = set(range(len(labels))) - {row.label for row in rows}
        if absent:
            missing = ", ".join(labels[index] for index in sorted(absent))
            raise DataInvalid(
                f"the {name} split ({len(rows)} rows) has no row labelled {missing}; more rows are needed"
            )


def _split(rows: Sequence[Clean]) -> Split:
    ratings = np.array([np.nan if row.rating is None else row.rating for row in rows])
    return Split(
        texts=tuple(row.text for row in rows),
        labels=np.array([row.label for row in rows], dtype=np.int64),
        ratings=None if np.isnan(ratings).all() else ratings,
        sources=tuple(row.source for row in rows) if any(row.source for row in rows) else (),
    )


def _fingerprint(rows: Iterable[Clean], recipe: Recipe) -> str:
    """SHA-256 over the sorted rows and everything in the recipe that shaped them. A file's folder is no part of it."""
    shape = {
        "data": _shape(recipe.data.model_dump(mode="json")),
        "labels": recipe.labels,
        "split": recipe.split.model_dump(mode="json"),
    }
    if recipe.prepare != PrepareSection():
        shape["prepare"] = recipe.prepare.model_dump(mode="json")
    hasher = hashlib.sha256(json.dumps(shape, sort_keys=True).encode())
    for line in sorted(json.dumps([row.text, row.label, row.rating, row.split]) for row in rows):
        hasher.update(line.encode() + b"\n")
    return f"sha256:{hasher.hexdigest()}"


def _shape(data: dict[str, Any]) -> dict[str, Any]:
    """What of a data section counts: no folder, and no field at the default it had before it existed."""
    if "sources" in data:
        return data | {"sources": [_shape(source) for source in data["sources"]]}
    unsaid = {"id_column": None, "held_out": False, "max_rows": None}
    return {name: value for name, value in data.items() if name != "path" and unsaid.get(name, ...) != value}


def _balance_p_value(splits: dict[SplitName, list[Clean]], labels: int) -> float:
    """How often chance alone would make the splits' labels differ at least this much (chi-square test)."""
    table = [np.bincount([row.label for row in rows], minlength=labels) for rows in splits.values()]
    return float(chi2_contingency(np.array(table)).pvalue)
