"""The rows to evaluate on: a recipe's own test split, or a labelled file of the user's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.progress import Progress

from artifact.manifest import Manifest
from inference.tasks.text import normalize_text
from inference.tasks.transforms import Cleaner
from training.assess import SOURCE, Rows
from training.data import Ids, Record, read_records, read_table
from training.errors import DataInvalid, EvaluationInvalid, RecipeInvalid
from training.expressions import number
from training.prepare import Prepared, prepare
from training.recipe import Band, Recipe, load_recipe, parse_recipe

_DEFAULT_TEXT: Final = "text"
_DEFAULT_LABEL: Final = "label"


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file's columns are read: which hold text and label, and what a label or a rating in it means.

    `clean` is how the model cleans a text: one of which nothing is left is refused. An id stands once in `id_column`,
    where a file has it.
    """

    text_column: str
    label_column: str
    labels: tuple[str, ...]
    names: Mapping[str, str] = field(default_factory=dict)
    bands: Mapping[str, Band] = field(default_factory=dict)
    id_column: str | None = None
    clean: Callable[[str], str] = field(default=normalize_text, compare=False)

    def label(self, value: object) -> int | None:
        """The label's index, None for a rating between two bands. Raises ValueError for anything else."""
        key = str(value).lower() if isinstance(value, bool) else str(value).strip()
        name = self.names.get(key, key)
        if name in self.labels:
            return self.labels.index(name)
        rating = number(value)
        if not self.bands or not np.isfinite(rating) or isinstance(value, bool):
            raise ValueError("not a label")
        return next((self.labels.index(label) for label, band in self.bands.items() if band.holds(rating)), None)


def recipe_of(manifest: Manifest, given: str | None = None) -> Recipe:
    """The recipe an artifact was trained by: from its manifest, or, where that cannot be read, from `given`.

    Raises RecipeInvalid.
    """
    if given is not None:
        return load_recipe(given)
    try:
        return parse_recipe(manifest.provenance.recipe, origin=f"of {manifest.name}:{manifest.version}")
    except RecipeInvalid as error:
        raise RecipeInvalid(f"{error.message}; give --recipe, or --data with a labelled file") from error


def prepared_again(manifest: Manifest, recipe: Recipe, cache: Path, progress: Progress) -> Prepared:
    """What the artifact was trained on, prepared anew from the same data; its test split is held out.

    Raises EvaluationInvalid when what is prepared now is not what the artifact was trained on: then its test split
    may hold rows that were trained on.
    """
    files = [source.path for source in (*recipe.sources, *recipe.elsewhere) if source.source == "file"]
    if absent := [path for path in files if not path.is_absolute() and not path.is_file()]:
        raise EvaluationInvalid(
            f"the model was trained on a local file, {absent[0].name}, which is not here; give --recipe with "
            "the recipe that lies beside it, or --data with a labelled file"
        )
    prepared = prepare(read_table(recipe, cache, progress), recipe, progress)
    trained_on = manifest.provenance.data_fingerprint
    if prepared.fingerprint != trained_on:
        raise EvaluationInvalid(
            f"{prepared.name} is not as it was when {manifest.name}:{manifest.version} was trained: its test split may "
            "hold rows the model has learned; give --data with rows that were held out"
        )
    return prepared


def rows_of(prepared: Prepared) -> Rows:
    """The test split as rows, with the rating where the data has one and the source where several were joined."""
    split = prepared.test
    columns: dict[str, Sequence[object]] = {}
    if split.ratings is not None:
        columns["rating"] = [None if np.isnan(rating) else float(rating) for rating in split.ratings]
    if split.sources:
        columns[SOURCE] = split.sources
    return Rows(f"test split of {prepared.name}", split.texts, split.labels, columns)


def reading_for(
    manifest: Manifest, recipe: Recipe | None, text_column: str | None = None, label_column: str | None = None
) -> Reading:
    """Columns as asked for, else as in the recipe (of several sources the first), else `text` and `label`."""
    data = recipe.sources[0] if recipe is not None and tuple(recipe.labels) == manifest.labels else None
    return Reading(
        text_column=text_column or (data.text_column if data else _DEFAULT_TEXT),
        label_column=label_column or (data.label_column if data else _DEFAULT_LABEL),
        labels=manifest.labels,
        names=data.label_names if data else {},
        bands=data.thresholds if data else {},
        id_column=data.id_column if data else None,
        clean=Cleaner.of(manifest.preprocessing),
    )


def file_rows(path: Path, reading: Reading) -> Rows:
    """A labelled file, every column kept. A rating in the neutral band is left out.

    Raises DataInvalid naming the row and the column, never what stands there; SourceUnavailable.
    """
    kept: list[tuple[str, int, Record]] = []
    total, ids = 0, Ids(reading.id_column)
    for total, record in enumerate(read_records(path, field="--data"), start=1):
        place = f"{path.name}, row {total}"
        text = _text(record, reading, place)
        label = _label(record, reading, place)
        if reading.id_column in record:
            ids.check(record, total, place)
        if label is not None:
            kept.append((text, label, record))
    if not kept:
        raise DataInvalid(f"{path.name}: no rows" if not total else f"{path.name}: every row has a neutral rating")
    neutral = total - len(kept)
    return Rows(
        name=path.name + (f" ({neutral:,} rows with a neutral rating left out)" if neutral else ""),
        texts=tuple(text for text, _, _ in kept),
        labels=np.array([label for _, label, _ in kept], dtype=np.int64),
        columns=_columns([record for _, _, record in kept], reading),
    )


def _columns(records: Sequence[Record], reading: Reading) -> dict[str, Sequence[object]]:
    """The other columns. In JSON lines a row may lack one: the cell is then None."""
    own = (reading.text_column, reading.label_column, None)
    names = dict.fromkeys(name for record in records for name in record if name not in own)
    return {name: [_plain(record.get(name)) for record in records] for name in names}


def _plain(value: Any) -> object:
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _text(record: Record, reading: Reading, place: str) -> str:
    column = reading.text_column
    value = _cell(record, column, place, "--text-column")
    if not isinstance(value, str):
        raise DataInvalid(f"{place}: column {column!r} does not hold text")
    if not value or value.isspace():
        raise DataInvalid(f"{place}: column {column!r} is empty")
    # As training does: lone surrogates, which no tokenizer takes, become U+FFFD.
    text = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if not reading.clean(text):
        raise DataInvalid(f"{place}: column {column!r} holds nothing but what this model's preprocessing takes out")
    return text


def _label(record: Record, reading: Reading, place: str) -> int | None:
    column = reading.label_column
    try:
        return reading.label(_cell(record, column, place, "--label-column"))
    except ValueError as error:
        known = ", ".join(reading.labels)
        raise DataInvalid(f"{place}: the label in column {column!r} is not one of {known}") from error


def _cell(record: Record, column: str, place: str, option: str) -> object:
    if column not in record:
        raise DataInvalid(f"{place}: no column {column!r}; name it with {option}")
    value: object = record[column]
    if value is None or value == "":
        raise DataInvalid(f"{place}: column {column!r} is empty")
    return value
