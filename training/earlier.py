"""What earlier commands found of the very rows and recipe that are trained, kept where `slipway train` looks for it.

`slipway explore` and `slipway evaluate RECIPE --folds` leave their findings in folders below `runs/NAME`; they land in
the manifest, the report and the cards of what is trained afterwards. Each lies under a key of what it was found in
(training/keys.py): what was found of other prepared rows, with another encoder or by other code, is as if it were not
there, and what nobody asked reads "not measured". `encoder` is always the digest of one.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from artifact.manifest import Explored, FoldsResult
from training.advice import Advice
from training.folds import CrossValidation
from training.keys import explored_key, folds_key, run_key
from training.prepare import Prepared
from training.recipe import Recipe
from training.steps import Steps

_FINDINGS: Final = "findings"
_KINDS: Final = ("fold", "source")


def explore_folder(recipe: Recipe) -> Path:
    """Where `slipway explore` keeps what it finished, unless it is told another folder."""
    return Path("runs") / recipe.name / "explore"


def folds_folder(recipe: Recipe, prepared: Prepared) -> Path:
    """Where `slipway evaluate RECIPE --folds` keeps what it finished, unless it is told another folder."""
    return Path("runs") / recipe.name / f"folds-{run_key(recipe, prepared)[:16]}"


def keep_explored(steps: Steps, key: str, advice: Sequence[Advice]) -> None:
    """Keep the facts; what training does about each follows from the recipe. Raises TrainingError."""
    found = tuple(Explored(topic=each.topic, level=each.level, found=each.found) for each in advice)
    steps.save(_FINDINGS, key, tuple[Explored, ...], found)


def explored(recipe: Recipe, prepared: Prepared, encoder: str) -> tuple[Explored, ...]:
    """What exploring said of these rows; nothing where they were not explored."""
    steps, key = Steps(explore_folder(recipe)), explored_key(recipe, prepared, encoder)
    return steps.load(_FINDINGS, key, tuple[Explored, ...]) or ()


def keep_folds(folder: Path, recipe: Recipe, prepared: Prepared, encoder: str, found: CrossValidation) -> None:
    """Keep the means over folds of fine-tuned models; the last number of folds counts. Raises TrainingError."""
    rows = sum(fold.rows for fold in found.folds)
    result = FoldsResult(by=found.kind, models=len(found.folds), rows=rows, metrics=found.mean)
    Steps(folder / "steps").save(_step(found.kind), folds_key(recipe, prepared, encoder), FoldsResult, result)


def folds_of(recipe: Recipe, prepared: Prepared, encoder: str) -> tuple[FoldsResult, ...]:
    """What cross-validating this recipe over these rows came to: in folds, by source, both or neither."""
    steps, key = Steps(folds_folder(recipe, prepared) / "steps"), folds_key(recipe, prepared, encoder)
    found = (steps.load(_step(kind), key, FoldsResult) for kind in _KINDS)
    return tuple(each for each in found if each is not None)


def _step(kind: str) -> str:
    return f"folds-by-{kind}"
