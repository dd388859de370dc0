"""MLflow, TensorBoard and Comet, through the Trainer's own integrations; off means that none is even imported.

runs/mlflow.db            MLflow's local store, in SQLite; MLFLOW_TRACKING_URI names another
<run>/mlflow-run          the id of the run there, so that a resumed run goes on in the same one
<run>/tensorboard/        TensorBoard's event files
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from training.errors import RecipeInvalid, TrainingError
from training.recipe import Recipe, TrackSection
from training.runs import RunSummary

STORE: Final = Path("runs") / "mlflow.db"
_RUN_ID: Final = "mlflow-run"
# Field of [track] -> what the Trainer calls it, the module it needs, what to install.
_KINDS: Final[Mapping[str, tuple[str, str, str]]] = {
    "mlflow": ("mlflow", "mlflow", "'slipway[track]'"),
    "tensorboard": ("tensorboard", "tensorboard", "'slipway[track]'"),
    "comet": ("comet_ml", "comet_ml", "comet_ml"),
}


def reporters(section: TrackSection) -> list[str]:
    """What the Trainer reports to. Raises RecipeInvalid for one that is not installed."""
    wanted = [_KINDS[name] + (name,) for name, on in section.model_dump().items() if on]
    for _, module, package, name in wanted:
        if find_spec(module) is None:
            raise RecipeInvalid(f"track.{name}: needs {module}, which is not installed here: pip install {package}")
    return [reporter for reporter, *_ in wanted]


@contextmanager
def tracked(recipe: Recipe, folder: Path) -> Iterator[Callable[[RunSummary], None]]:
    """Set up what the recipe's `[track]` names for one run in `folder`; the caller gets what records its outcome.

    Raises RecipeInvalid as `reporters` does and where Comet has no key, TrainingError when MLflow's store cannot be
    used.
    """
    names = reporters(recipe.track)
    with ExitStack() as stack:
        if names:
            stack.enter_context(_environment(_variables(recipe, folder)))
        if recipe.track.comet:
            stack.enter_context(_comet_refusals())
        yield stack.enter_context(_mlflow_run(recipe, folder)) if recipe.track.mlflow else _nobody


def _nobody(summary: RunSummary) -> None:
    """Nobody is told."""


def _variables(recipe: Recipe, folder: Path) -> dict[str, str]:
    """How the integrations are told where to write; what the user has set counts more."""
    return {
        "TENSORBOARD_LOGGING_DIR": str(folder / "tensorboard"),
        "COMET_PROJECT_NAME": recipe.name,
        "MLFLOW_EXPERIMENT_NAME": recipe.name,
        "MLFLOW_TRACKING_URI": f"sqlite:///{STORE.resolve()}",
    }


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """`variables` where they are not set, for as long as this lasts."""
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ |= added
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _comet_refusals() -> Iterator[None]:
    """Comet refuses with a plain ValueError in the middle of the training: a missing key is the user's to mend."""
    try:
        yield
    except ValueError as error:
        if not all(word in str(error).lower() for word in ("comet", "api key")):
            raise
        raise RecipeInvalid(f"track.comet: {error}".strip()) from error


@contextmanager
def _mlflow_run(recipe: Recipe, folder: Path) -> Iterator[Callable[[RunSummary], None]]:
    """An MLflow run that the Trainer's integration finds active, and goes on with."""
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    before = mlflow.get_tracking_uri()
    try:
        STORE.parent.mkdir(parents=True, exist_ok=True)
        mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
        _choose_experiment(mlflow, recipe.name)
        with mlflow.start_run(run_id=_known_run(mlflow, folder), run_name=folder.name) as active:
            (folder / _RUN_ID).write_text(active.info.run_id, encoding="utf-8")
            yield lambda summary: _record(mlflow, summary)
            mlflow.flush_async_logging()
    except mlflow.exceptions.MlflowException as error:
        reason = str(error).partition("\n")[0]
        raise TrainingError(f"track.mlflow: the store cannot be used: {reason}") from error
    finally:
        mlflow.set_tracking_uri(before)


def _choose_experiment(mlflow: Any, name: str) -> None:
    """Files that somebody logs go beside the store, not into the working folder."""
    if mlflow.get_experiment_by_name(name) is None:
        mlflow.create_experiment(name, artifact_location=(STORE.parent / "mlflow-files").resolve().as_uri())
    mlflow.set_experiment(name)


def _known_run(mlflow: Any, folder: Path) -> str | None:
    """The id this folder's run has in the store, if it has one."""
    try:
        known = (folder / _RUN_ID).read_text(encoding="utf-8")
        return str(mlflow.get_run(known).info.run_id)
    except (OSError, UnicodeDecodeError, mlflow.exceptions.MlflowException):
        return None


def _record(mlflow: Any, summary: RunSummary) -> None:
    """The test metrics with their intervals, and what the run became."""
    values: dict[str, float] = {}
    for name, estimate in summary.metrics.items():
        values |= {f"test_{name}": estimate.value, f"test_{name}_low": estimate.low, f"test_{name}_high": estimate.high}
    mlflow.log_metrics(values)
    mlflow.set_tags(
        {
            "slipway.data_fingerprint": summary.data_fingerprint,
            "slipway.weights_digest": summary.weights_digest,
            "slipway.artifact": f"{summary.model}:{summary.version}" if summary.version else "refused",
            "slipway.digest": summary.digest,
        }
    )
