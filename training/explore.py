"""`slipway explore`: what a data set is like, before anybody trains on it, and what training will do about it.

Rows are read and cleaned as `slipway train` would, and divided by the very same code; so the counts here are those
that training will report. Everything is counted over all rows but what needs a model: words, languages and doubtful
labels are looked for in a sample of up to fifty thousand rows, chosen by a hash of the text.

Each part is kept when it is done (training/steps.py), so that an exploration that was killed goes on where it was, and
one that is asked about another file beside the same data looks at that file alone.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from inference.tasks.pii import mask_pii
from training.data import Table, label_key, read_records, read_table, text_cell
from training.duplicates import find_twins
from training.errors import DataInvalid
from training.keys import encoder_digest, explored_key
from training.prepare import Clean, Cleaning, Prepared, Trace, prepare
from training.recipe import Recipe
from training.signals import (
    Apart,
    Bag,
    Suspect,
    Telling,
    bag_of,
    find_suspects,
    giveaways,
    how_far_apart,
    telling_words,
)
from training.sources import EncoderFolder, fetch_encoder
from training.steps import Steps, code_key, key_of
from training.survey import Sampled, Survey, Surveyor, open_tokenizer
from training.texts import languages_of

T = TypeVar("T")

_LANGUAGE_ROWS: Final = 20_000
_SHOWN: Final = 20
_PAIRS_SHOWN: Final = 10
_EXCERPT: Final = 160


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts that are nearly the same, in excerpts, and the splits their hashes say."""

    dropped: str
    dropped_split: str
    kept: str
    kept_split: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What preparing made of the rows; `refusal` is what training would say instead of starting.

    `key` stands for the prepared rows and how they are read, and is empty where training would refuse them.
    Of the near duplicates, `across_splits` had their twin in another split and `other_label` under another label.
    `conflicting` are the first texts that stand under several labels.
    """

    counts: dict[str, int]
    refusal: str
    balance_p_value: float | None
    transformed: dict[str, int]
    masked: dict[str, int]
    across_splits: int
    other_label: int
    pairs: list[Pair]
    key: str
    conflicting: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Doubt:
    """A label to look at: where the row stands, what it says, what a model that had not seen it says."""

    source: str
    row: int
    given: str
    suggested: str
    probability_given: float
    probability_suggested: float
    text: str


@dataclass(frozen=True, slots=True)
class Doubts:
    """Suspicious labels in the sample; `shown` are the surest. `accuracy` is that of the model that doubts."""

    rows: int
    accuracy: float
    shown: list[Doubt]


@dataclass(frozen=True, slots=True)
class Sample:
    """What was looked for in a sample of `rows`: words by label, shares of languages, doubtful labels."""

    rows: int
    telling: dict[str, tuple[Telling, ...]]
    giveaways: dict[str, tuple[Telling, ...]]
    languages: dict[str, float]
    doubts: Doubts | None


@dataclass(frozen=True, slots=True)
class Leak:
    """A row of a held-out file that is in the data; `exact`: word for word."""

    row: int
    exact: bool
    text: str


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A file that must not be in the data: how many of its rows are, as they stand or nearly; `shown` are the first."""

    name: str
    rows: int
    exact: int
    near: int
    shown: list[Leak] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Drift:
    """A second data set beside the first. `labels` are its shares, None where it has no such column."""

    name: str
    rows: int
    apart: Apart
    labels: dict[str, float] | None


@dataclass(frozen=True, slots=True)
class Exploration:
    """Everything that was found."""

    name: str
    licence: str
    origin: str
    rows: int
    sources: dict[str, int]
    transforms: tuple[str, ...]
    survey: Survey
    outcome: Outcome
    sample: Sample
    held_out: tuple[HeldOut, ...]
    drift: Drift | None


@dataclass(frozen=True, slots=True)
class Other:
    """A second file: its texts, cleaned as the first's, and its labels where it has the column."""

    name: str
    texts: list[str]
    labels: Counter[str] | None

    @property
    def digest(self) -> str:
        """Of all that is in it."""
        labels = sorted(self.labels.items()) if self.labels else []
        return digest_of((self.name, repr(labels), *self.texts))


@dataclass(frozen=True)
class Explorer:
    """Explores the data of one recipe; what is finished is kept in `steps`."""

    recipe: Recipe
    cache: Path
    progress: Progress
    steps: Steps

    def explore(self, held_out: Sequence[Path] = (), against: Path | None = None) -> Exploration:
        """Look at everything; data that training would refuse is explored too.

        Raises DataInvalid for a table that cannot be read, SourceUnavailable for data or an encoder that is not there.
        """
        others = [self.read_other(path) for path in held_out]
        second = self.read_other(against) if against else None
        table = read_table(self.recipe, self.cache, self.progress)
        encoder = fetch_encoder(self.recipe.encoder, self.cache, self.progress)
        digest = encoder_digest(encoder.path)
        key = self._key(table, digest)
        survey, sampled = self._once("survey", tuple[Survey, list[Sampled]], key, lambda: self._survey(table, encoder))
        return Exploration(
            name=table.name,
            licence=table.licence,
            origin=table.origin,
            rows=len(table.rows),
            sources=dict(Counter(row.source for row in table.rows if row.source)),
            transforms=self.recipe.prepare.transforms,
            survey=survey,
            outcome=self._once("outcome", Outcome, key, lambda: self._outcome(table, digest)),
            sample=self._once("sample", Sample, key, lambda: self._sample(table, sampled)),
            held_out=self._held_out(others, table, key),
            drift=self._drift(second, sampled, key) if second else None,
        )

    def _once(self, name: str, kind: type[T], key: str, work: Callable[[], T]) -> T:
        """What was kept of this step or, where nothing was, what `work` finds."""
        found = self.steps.load(name, key, kind)
        return self.steps.save(name, key, kind, work()) if found is None else found

    def _key(self, table: Table, encoder: str) -> str:
        """Of all that goes into every step; `encoder` is its digest."""
        rows = digest_of(f"{row.source}\0{row.number}\0{row.label}\0{row.rating}\0{row.text}" for row in table.rows)
        return key_of(code_key(), self.recipe.model_dump(mode="json"), rows, encoder)

    def read_other(self, path: Path) -> Other:
        """A table with the same text column. Raises DataInvalid, SourceUnavailable."""
        source = self.recipe.sources[0]
        clean = Cleaning(self.recipe.prepare)
        texts, labels = [], Counter[str]()
        records = read_records(path, (source.text_column, source.label_column), field="data.path")
        for number, record in enumerate(records, start=1):
            place = f"{path.name}, row {number}"
            texts.append(clean(text_cell(record, source.text_column, place, "the recipe's column, or --text-column")))
            if record.get(source.label_column) is not None:
                key = label_key(record[source.label_column])
                labels[source.label_names.get(key, key)] += 1
        if not texts:
            raise DataInvalid(f"{path.name}: no rows")
        return Other(path.name, texts, labels if labels.keys() <= set(self.recipe.labels) and labels else None)

    def _survey(self, table: Table, encoder: EncoderFolder) -> tuple[Survey, list[Sampled]]:
        surveyor = Surveyor(self.recipe, len(table.rows), open_tokenizer(encoder))
        for number, row in enumerate(self.progress.track(table.rows, description="Looking at every row")):
            surveyor.see(number, row)
        return surveyor.finish(encoder.name), surveyor.sample()

    def _outcome(self, table: Table, encoder: str) -> Outcome:
        trace, prepared, refusal = Trace(), None, ""
        try:
            prepared = prepare(table, self.recipe, self.progress, trace)
        except DataInvalid as error:
            refusal = error.message
        key = explored_key(self.recipe, prepared, encoder) if prepared else ""
        return _outcome(trace, prepared, refusal, key)

    def _sample(self, table: Table, sampled: Sequence[Sampled]) -> Sample:
        labels = np.array([each.label for each in sampled], dtype=np.int64)
        texts = [each.text for each in sampled]
        bag = self._during("Counting words", lambda: bag_of(texts))
        languages = self._during("Guessing languages", lambda: languages_of(texts[:_LANGUAGE_ROWS]))
        return Sample(
            rows=len(sampled),
            telling=self._by_label(telling_words, bag, labels),
            giveaways=self._by_label(giveaways, bag, labels),
            languages=_shares(Counter(languages)),
            doubts=self._during("Doubting labels", lambda: self._doubts(table, sampled, bag, labels)),
        )

    def _by_label(
        self, find: Callable[[Bag, NDArray[np.int64], int], T], bag: Bag, labels: NDArray[np.int64]
    ) -> dict[str, T]:
        present = set(labels.tolist())
        return {name: find(bag, labels, index) for index, name in enumerate(self.recipe.labels) if index in present}

    def _doubts(self, table: Table, sampled: Sequence[Sampled], bag: Bag, labels: NDArray[np.int64]) -> Doubts | None:
        suspects = find_suspects(bag, labels)
        if suspects is None:
            return None
        shown = [self._doubt(table, sampled[suspect.row], suspect) for suspect in suspects.rows[:_SHOWN]]
        return Doubts(len(suspects.rows), suspects.accuracy, shown)

    def _doubt(self, table: Table, sampled: Sampled, suspect: Suspect) -> Doubt:
        row = table.rows[sampled.number]
        return Doubt(
            source=row.source,
            row=row.number,
            given=self.recipe.labels[suspect.given],
            suggested=self.recipe.labels[suspect.suggested],
            probability_given=suspect.probability_given,
            probability_suggested=suspect.probability_suggested,
            text=excerpt(sampled.text),
        )

    def _held_out(self, others: Sequence[Other], table: Table, key: str) -> tuple[HeldOut, ...]:
        @cache
        def texts() -> list[str]:
            clean = Cleaning(self.recipe.prepare)
            return list(dict.fromkeys(clean(row.text) for row in table.rows if row.label is not None))

        def look(other: Other) -> HeldOut:
            return self._during(f"Looking for {other.name}", lambda: held_out_in(other, texts()))

        return tuple(
            self._once(f"held-out-{number}", HeldOut, key_of(key, each.digest), partial(look, each))
            for number, each in enumerate(others, start=1)
        )

    def _drift(self, second: Other, sampled: Sequence[Sampled], key: str) -> Drift:
        def compare() -> Drift:
            texts = sorted({text for text in second.texts if text}, key=hash_order)
            apart = how_far_apart([each.text for each in sampled], texts)
            return Drift(second.name, len(second.texts), apart, _shares(second.labels) if second.labels else None)

        return self._once(
            "drift", Drift, key_of(key, second.digest), lambda: self._during("Comparing the two sets", compare)
        )

    def _during(self, what: str, work: Callable[[], T]) -> T:
        """Do `work` under a bar that says what it is."""
        task = self.progress.add_task(what, total=None)
        try:
            return work()
        finally:
            self.progress.remove_task(task)


def held_out_in(other: Other, texts: Sequence[str]) -> HeldOut:
    """How many rows of `other` are among `texts`, word for word or nearly."""
    present = set(texts)
    mine = [text for text in dict.fromkeys(other.texts) if text and text not in present]
    twins = find_twins([*mine, *texts], fixed=len(mine)) if mine else np.array([], dtype=np.int64)
    near = {mine[twin] for twin in twins[twins >= 0].tolist()}
    inside = [
        (row, text) for row, text in enumerate(other.texts, start=1) if text and (text in present or text in near)
    ]
    exact = sum(text in present for _, text in inside)
    shown = [Leak(row, text in present, excerpt(text)) for row, text in inside[:_PAIRS_SHOWN]]
    return HeldOut(other.name, len(other.texts), exact, len(inside) - exact, shown)


def excerpt(text: str) -> str:
    """The beginning of a text, with personal data masked."""
    text = mask_pii(text)
    return text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]}…"


def digest_of(parts: Iterable[str]) -> str:
    """A hash of `parts` in their order, and of where each of them ends."""
    hasher = hashlib.sha256()
    for part in parts:
        content = part.encode(errors="surrogatepass")
        hasher.update(len(content).to_bytes(8, "big"))
        hasher.update(content)
    return hasher.hexdigest()


def hash_order(text: str) -> bytes:
    """An order of texts that means nothing and is the same every time."""
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def _outcome(trace: Trace, prepared: Prepared | None, refusal: str, key: str) -> Outcome:
    return Outcome(
        counts=trace.counts,
        refusal=refusal,
        balance_p_value=prepared.balance_p_value if prepared else None,
        transformed=prepared.transformed if prepared else {},
        masked=prepared.masked if prepared else {},
        across_splits=sum(one.split != other.split for one, other in trace.near),
        other_label=sum(one.label != other.label for one, other in trace.near),
        pairs=[_pair(one, other) for one, other in trace.near[:_PAIRS_SHOWN]],
        key=key,
        conflicting=[excerpt(text) for text in trace.conflicting[:_PAIRS_SHOWN]],
    )


def _pair(dropped: Clean, kept: Clean) -> Pair:
    return Pair(excerpt(dropped.text), dropped.split, excerpt(kept.text), kept.split)


def _shares(counts: Counter[str]) -> dict[str, float]:
    return {name: count / counts.total() for name, count in counts.most_common()}
