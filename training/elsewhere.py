"""Out of domain: labelled data of other kinds, never learned from, on which a model is measured apart."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from rich.progress import Progress

from artifact.manifest import SliceResult
from inference.model import Model
from training.assess import Rows, answer
from training.data import Table, read_source
from training.duplicates import find_twins
from training.intervals import proportion
from training.prepare import Cleaning, Prepared
from training.recipe import Recipe

ELSEWHERE: Final = "elsewhere"


def rows_elsewhere(recipe: Recipe, prepared: Prepared, cache: Path, progress: Progress) -> tuple[Rows, ...]:
    """The rows of each source under `elsewhere`, without the neutral ones and all that is like a training text.

    Raises DataInvalid or SourceUnavailable.
    """
    tables = [read_source(recipe.labels, source, cache, progress) for source in recipe.elsewhere]
    places = [_labelled(table, Cleaning(recipe.prepare)) for table in tables]
    if not places:
        return ()
    learned = (*prepared.train.texts, *prepared.validation.texts)
    # All at once: most of the work is in the texts that were learned.
    texts = [text for place in places for text, _ in place]
    twins = iter(find_twins([*learned, *texts], fixed=len(learned))[len(learned) :])
    unknown = [[row for row in place if next(twins) < 0] for place in places]
    return tuple(_rows(table.name, place) for table, place in zip(tables, unknown, strict=True))


def _labelled(table: Table, clean: Cleaning) -> list[tuple[str, int]]:
    cleaned = ((clean(row.text), row.label) for row in table.rows)
    return [(text, label) for text, label in cleaned if text and label is not None]


def _rows(name: str, kept: Sequence[tuple[str, int]]) -> Rows:
    return Rows(name, tuple(text for text, _ in kept), np.array([label for _, label in kept], dtype=np.int64))


def measure_elsewhere(model: Model, places: Sequence[Rows], progress: Progress) -> tuple[SliceResult, ...]:
    """Accuracy on each, with Wilson's interval, through the code that serves the model."""
    return tuple(
        SliceResult(
            by=ELSEWHERE,
            name=rows.name,
            rows=len(rows.texts),
            accuracy=proportion(int(np.sum(_predicted(model, rows, progress) == rows.labels)), len(rows.texts)),
        )
        for rows in places
        if rows.texts
    )


def _predicted(model: Model, rows: Rows, progress: Progress) -> npt.NDArray[np.int64]:
    scores = answer(model, rows.texts, progress, f"Predicting {rows.name}").scores
    return np.asarray(scores.argmax(axis=1), dtype=np.int64)
