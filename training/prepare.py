"""Clean rows, drop duplicates, and only then divide them into train, validation and test.

Where a row goes is decided by the SHA-256 of its own normalised text alone, so adding rows never moves another row
from one split to another: it can at most make it a duplicate. The price is that shares and label balance hold in
expectation, not to the row; `Prepared.balance_p_value` is the check that they came out as chance allows.

Near duplicates are found with MinHash and locality-sensitive hashing (Broder 1997; Leskovec, Rajaraman & Ullman,
Mining of Massive Datasets, chapter 3; Lee et al. 2022 for why before splitting) and confirmed by exact Jaccard
similarity. Of two, the one in the split nearer to the test survives, so new training rows never change the test split.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from datasketch import MinHash, MinHashLSH
from rich.progress import Progress
from scipy.stats import chi2_contingency  # type: ignore[import-untyped]

from inference.tasks.text import normalize_text
from training.data import Row, Table
from training.errors import DataInvalid
from training.recipe import Recipe, SplitFractions

SHINGLE_CHARACTERS: Final = 5
NEAR_DUPLICATE_SIMILARITY: Final = 0.8
MIN_ROWS: Final = 40
_PERMUTATIONS: Final = 64
_REPORT_EVERY: Final = 500

SplitName = Literal["test", "validation", "train"]
_SURVIVAL_ORDER: Final[tuple[SplitName, ...]] = ("test", "validation", "train")


@dataclass(frozen=True, slots=True)
class Split:
    """Texts (normalised), labels of shape (n,), and ratings of shape (n,) where the data has them."""

    texts: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    ratings: npt.NDArray[np.float64] | None

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What training starts from. `counts` tells what became of every row, in the order it happened."""

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


@dataclass(frozen=True, slots=True)
class _Clean:
    """A row that is still in, with the digest of its normalised text and the split that follows from it."""

    text: str
    label: int
    rating: float | None
    digest: bytes
    split: SplitName


def prepare(table: Table, recipe: Recipe, progress: Progress) -> Prepared:
    """Normalise, drop, divide; the order of rows does not matter. Raises DataInvalid when too little is left."""
    counts = {"read": len(table.rows)}
    rows = _normalised(table.rows, counts)
    rows = _labelled(rows, counts)
    clean = _without_exact_duplicates(rows, recipe.split, counts)
    clean = _at_most(clean, recipe.max_rows, counts)
    clean = _without_near_duplicates(clean, counts, progress)
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
    )


def split_of(digest: bytes, fractions: SplitFractions) -> SplitName:
    """The split of a text whose SHA-256 is `digest`: its first 8 bytes, read as a fraction, fall into one share."""
    fraction = int.from_bytes(digest[:8], "big") / 2**64
    if fraction < fractions.test:
        return "test"
    return "validation" if fraction < fractions.test + fractions.validation else "train"


def shingles(text: str) -> frozenset[str]:
    """Runs of five characters of the lower-cased words: blind to case, punctuation and spacing."""
    words = "".join(character if character.isalnum() else " " for character in text.casefold()).split()
    flat = " ".join(words) or text
    last = max(1, len(flat) - SHINGLE_CHARACTERS + 1)
    return frozenset(flat[start : start + SHINGLE_CHARACTERS] for start in range(last))


def _normalised(rows: Iterable[Row], counts: dict[str, int]) -> list[Row]:
    kept = [
        Row(text, row.label, row.rating, row.pinned_to_test) for row in rows if (text := _encodable(row.text)) != ""
    ]
    counts["empty"] = counts["read"] - len(kept)
    return kept


def _encodable(text: str) -> str:
    """Normalised; lone surrogates, which no tokenizer takes, become U+FFFD."""
    return normalize_text(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def _labelled(rows: list[Row], counts: dict[str, int]) -> list[Row]:
    kept = [row for row in rows if row.label is not None]
    counts["neutral"] = len(rows) - len(kept)
    return kept


def _without_exact_duplicates(rows: list[Row], fractions: SplitFractions, counts: dict[str, int]) -> list[_Clean]:
    """One row per text. A text that carries two labels teaches nothing and is dropped altogether."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.text, []).append(row)
    agreed = {text: group for text, group in groups.items() if len({row.label for row in group}) == 1}
    counts["conflicting"] = sum(len(group) for text, group in groups.items() if text not in agreed)
    counts["exact_duplicates"] = len(rows) - counts["conflicting"] - len(agreed)
    return [_merged(text, group, fractions) for text, group in agreed.items()]


def _merged(text: str, group: Sequence[Row], fractions: SplitFractions) -> _Clean:
    digest = hashlib.sha256(text.encode()).digest()
    ratings = [row.rating for row in group if row.rating is not None]
    pinned = any(row.pinned_to_test for row in group)
    label = group[0].label
    assert label is not None  # noqa: S101 - neutral rows are gone by now
    return _Clean(
        text=text,
        label=label,
        rating=math.fsum(ratings) / len(ratings) if ratings else None,
        digest=digest,
        split="test" if pinned else split_of(digest, fractions),
    )


def _at_most(rows: list[_Clean], limit: int | None, counts: dict[str, int]) -> list[_Clean]:
    """The `limit` rows with the smallest bytes 8..16 of their digest: independent of the split, stable under growth."""
    kept = rows if limit is None else sorted(rows, key=lambda row: row.digest[8:16])[:limit]
    counts["over_max_rows"] = len(rows) - len(kept)
    return kept


def _without_near_duplicates(rows: list[_Clean], counts: dict[str, int], progress: Progress) -> list[_Clean]:
    """Keep a row unless one before it is at least NEAR_DUPLICATE_SIMILARITY like it; test rows come first."""
    ordered = sorted(rows, key=lambda row: (_SURVIVAL_ORDER.index(row.split), row.digest))
    seen = _Seen()
    kept = [row for row in _tracked(ordered, "Dropping near duplicates", progress) if seen.is_new(row.text)]
    counts["near_duplicates"] = len(rows) - len(kept)
    return kept


def _tracked(rows: Sequence[_Clean], title: str, progress: Progress) -> Iterator[_Clean]:
    task = progress.add_task(title, total=len(rows))
    for number, row in enumerate(rows, start=1):
        yield row
        if number % _REPORT_EVERY == 0:
            progress.update(task, completed=number)
    progress.remove_task(task)


class _Seen:
    """The texts met so far, searchable by likeness."""

    def __init__(self) -> None:
        # A threshold below the real one trades a few more exact comparisons for hardly any missed pairs.
        self._index = MinHashLSH(threshold=NEAR_DUPLICATE_SIMILARITY - 0.15, num_perm=_PERMUTATIONS)
        self._empty = MinHash(num_perm=_PERMUTATIONS)
        self._texts: list[str] = []

    def is_new(self, text: str) -> bool:
        """Whether nothing like `text` was seen; if so it is remembered."""
        mine = shingles(text)
        signature = self._empty.copy()
        signature.update_batch([shingle.encode() for shingle in mine])
        candidates = sorted(self._index.query(signature))
        if any(_jaccard(mine, shingles(self._texts[other])) >= NEAR_DUPLICATE_SIMILARITY for other in candidates):
            return False
        self._index.insert(len(self._texts), signature, check_duplication=False)
        self._texts.append(text)
        return True


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)


def _check_enough(splits: dict[SplitName, list[_Clean]], labels: Sequence[str], counts: dict[str, int]) -> None:
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


def _split(rows: Sequence[_Clean]) -> Split:
    ratings = [row.rating for row in rows if row.rating is not None]
    return Split(
        texts=tuple(row.text for row in rows),
        labels=np.array([row.label for row in rows], dtype=np.int64),
        ratings=np.array(ratings) if len(ratings) == len(rows) else None,
    )


def _fingerprint(rows: Iterable[_Clean], recipe: Recipe) -> str:
    """SHA-256 over the sorted rows and everything in the recipe that shaped them. A file's folder is no part of it."""
    shape = {
        "data": recipe.data.model_dump(mode="json", exclude={"path"}),
        "labels": recipe.labels,
        "split": recipe.split.model_dump(mode="json"),
    }
    hasher = hashlib.sha256(json.dumps(shape, sort_keys=True).encode())
    for line in sorted(json.dumps([row.text, row.label, row.rating, row.split]) for row in rows):
        hasher.update(line.encode() + b"\n")
    return f"sha256:{hasher.hexdigest()}"


def _balance_p_value(splits: dict[SplitName, list[_Clean]], labels: int) -> float:
    """How often chance alone would make the splits' labels differ at least this much (chi-square test)."""
    table = [np.bincount([row.label for row in rows], minlength=labels) for rows in splits.values()]
    return float(chi2_contingency(np.array(table)).pvalue)
