"""What `slipway explore` found in a recipe's data, kept where `slipway train` looks for it.

It lands in the manifest, the report and the data card only when it was found in the very rows that are trained on
(training/keys.py). Data that nobody explored has no findings: that reads "not measured".
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from artifact.manifest import Explored
from training.advice import Advice
from training.recipe import Recipe
from training.steps import Steps

_STEP: Final = "findings"


def explore_folder(recipe: Recipe) -> Path:
    """Where `slipway explore` keeps what it finished, unless it is told another folder."""
    return Path("runs") / recipe.name / "explore"


def keep_explored(steps: Steps, key: str, advice: Sequence[Advice]) -> None:
    """Keep the facts; what training does about each follows from the recipe. Raises TrainingError."""
    found = tuple(Explored(topic=each.topic, level=each.level, found=each.found) for each in advice)
    steps.save(_STEP, key, tuple[Explored, ...], found)


def explored(steps: Steps, key: str) -> tuple[Explored, ...]:
    """The facts kept under `key`; none where these rows were not explored."""
    return steps.load(_STEP, key, tuple[Explored, ...]) or ()
