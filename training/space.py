"""The search space of a study: which fields of a recipe, what each may be, and the next values."""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Final

import optuna

from training.errors import RecipeInvalid
from training.recipe import Recipe, Search, parse_recipe
from training.tune_report import Value

Values = Mapping[str, Value]

# What is searched where a recipe names nothing: the fields that matter most for a small encoder.
DEFAULT_SPACE: Final[Mapping[str, Search]] = {
    "training.learning_rate": Search(low=2e-5, high=4e-4, log=True),
    "training.layer_decay": Search(low=0.7, high=1.0, step=0.1),
    "training.batch_size": Search(choices=(16, 32, 64)),
    "training.weight_decay": Search(low=1e-3, high=0.1, log=True),
    "training.dropout": Search(low=0.0, high=0.3, step=0.1),
    "training.label_smoothing": Search(low=0.0, high=0.1, step=0.05),
    "training.schedule": Search(choices=("linear", "cosine")),
}
_NOT_TUNED: Final = frozenset({"training.seed", "encoder.source", "encoder.revision"})


def space_of(recipe: Recipe) -> dict[str, Search]:
    """Dotted field name to what it may be."""
    named = {
        f"{section}.{field}": search
        for section, fields in recipe.tune.space.items()
        for field, search in fields.items()
    }
    return named or dict(DEFAULT_SPACE)


def check_space(recipe: Recipe, jobs: int = 1) -> None:
    """Refuse a space with a value that no recipe may hold. Raises RecipeInvalid naming the field."""
    if recipe.tune.latency and jobs > 1:
        raise RecipeInvalid("tune.latency: needs one job, for a trial that trains beside it would be measured too")
    if recipe.tune.latency and recipe.tune.folds is not None:
        raise RecipeInvalid("tune.latency: is that of a trial's one model; leave out tune.folds")
    for name, search in space_of(recipe).items():
        if name in _NOT_TUNED:
            raise RecipeInvalid(f"tune.space.{name}: is not for tuning")
        if recipe.tune.sampler == "grid" and not _finite(search):
            raise RecipeInvalid(f"tune.space.{name}: a grid needs choices, or a step between low and high")
        for value in search.choices or (search.low, search.high):
            with_values(recipe, {name: value})  # type: ignore[dict-item]


def with_values(recipe: Recipe, values: Values) -> Recipe:
    """The recipe with other values in it. Raises RecipeInvalid naming the field."""
    changed = recipe.model_dump(exclude_unset=True)
    for name, value in values.items():
        section, _, field = name.partition(".")
        changed.setdefault(section, {})[field] = value
    return parse_recipe(changed, origin=f"{recipe.name} in a trial")


def grid_values(search: Search) -> list[Value]:
    """Every value of a finite search, in order."""
    if search.choices is not None:
        return list(search.choices)
    low, high, step = search.low or 0, search.high or 0, search.step or 1
    # Rounded, for 3 * 0.1 is not 0.3.
    return [round(low + step * number, 12) for number in range(math.floor((high - low) / step + 1e-9) + 1)]


def _finite(search: Search) -> bool:
    whole = isinstance(search.low, int) and isinstance(search.high, int)
    return search.choices is not None or search.step is not None or (whole and not search.log)


def grid(recipe: Recipe) -> Iterator[dict[str, Value]]:
    """Every cell of a finite space, in order."""
    space = space_of(recipe)
    for cell in itertools.product(*(grid_values(search) for search in space.values())):
        yield dict(zip(space, cell, strict=True))


def cells(recipe: Recipe) -> int | float:
    """How many trials there can be."""
    if recipe.tune.sampler != "grid":
        return math.inf
    return math.prod(len(grid_values(search)) for search in space_of(recipe).values())


def suggest(trial: optuna.Trial, space: Mapping[str, Search]) -> dict[str, Value]:
    """The next values, as the study's sampler draws them. A whole low and high make whole numbers."""
    values: dict[str, Value] = {}
    for name, search in space.items():
        low, high, step = search.low or 0, search.high or 0, search.step
        if search.choices is not None:
            values[name] = _chosen(trial.suggest_categorical(name, search.choices))
        elif isinstance(low, int) and isinstance(high, int) and not isinstance(step, float):
            values[name] = trial.suggest_int(
                name, low, high - (high - low) % (step or 1), step=step or 1, log=search.log
            )
        else:
            last = high if step is None else grid_values(search)[-1]
            values[name] = trial.suggest_float(name, float(low), float(last), step=step, log=search.log)
    return values


def _chosen(value: Value | None) -> Value:
    """Optuna allows None among its choices; a recipe does not."""
    if value is None:
        raise TypeError("a choice is None")
    return value
