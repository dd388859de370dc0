"""`slipway evaluate`: a published model on held-out rows, or a recipe by cross-validation."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from artifact.files import cache_dir, write_atomically
from artifact.manifest import Manifest
from artifact.repository import Artifact
from inference.model import Model
from inference.plan import find_variant
from training.assess import Answers, Assessed, Questions, Rows, answer, assess, check_columns
from training.bias import load_probes
from training.compare import Comparison, check_labels, compare, in_order
from training.data import read_table
from training.disk import disk_errors
from training.earlier import folds_folder, keep_folds
from training.elsewhere import measure_elsewhere, rows_elsewhere
from training.errors import EvaluationInvalid, RecipeInvalid, TrainingError
from training.evaluate import Evaluation, evaluate
from training.fold_plan import NOTHING, FoldPlan, Folds, check_folds
from training.folds import CrossValidation, FoldResult, Validated, compare_held_out, cross_validate
from training.keys import encoder_digest
from training.labelled import file_rows, prepared_again, reading_for, recipe_of, rows_of
from training.page import shown
from training.prepare import Prepared, prepare
from training.progress import progress_on
from training.quiet import quiet
from training.recipe import Recipe, load_recipe
from training.sources import EncoderFolder, fetch_encoder
from training.steps import only_user


@dataclass(frozen=True, slots=True)
class Asked:
    """What to evaluate on and look at. Without `data` it is the test split of the model's own recipe."""

    data: Path | None = None
    text_column: str | None = None
    label_column: str | None = None
    recipe: str | None = None
    variant: str | None = None
    against_variant: str | None = None
    groups: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    probes: Path | None = None
    perturbed_rows: int = 500
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Everything that was found about one model, and about the one beside it."""

    model: str
    digest: str
    labels: tuple[str, ...]
    assessed: Assessed
    comparison: Comparison | None
    other: Evaluation | None

    def document(self) -> dict[str, Any]:
        """One JSON document."""
        return {
            "model": self.model,
            "digest": self.digest,
            "assessment": self.assessed.assessment.model_dump(mode="json"),
            "confusion_matrix": self.assessed.evaluation.confusion_matrix,
            "comparison": self.comparison and self.comparison.model_dump(mode="json"),
        }


@dataclass(frozen=True, slots=True)
class CrossValidated:
    """What was found about one recipe in folds, and about the one beside it over the same folds."""

    found: CrossValidation
    other: CrossValidation | None = None
    comparison: Comparison | None = None

    def document(self) -> dict[str, Any]:
        """One JSON document: the recipe's, with the other one's under `against` where there is one."""
        own = self.found.model_dump(mode="json")
        if self.other is None or self.comparison is None:
            return own
        beside = {"against": self.other, "comparison": self.comparison}
        return own | {name: part.model_dump(mode="json") for name, part in beside.items()}


def evaluate_model(artifact: Artifact, other: Artifact | None, asked: Asked, console: Console) -> Evaluated:
    """Measure one published model, through the code that serves it, and compare it with `other` on the same rows.

    Raises EvaluationInvalid or DataInvalid before a model is loaded wherever the question or the rows are at fault,
    and what reading data and loading a model raise.
    """
    questions = Questions(
        groups=asked.groups,
        conditions=asked.conditions,
        probes=load_probes(asked.probes),
        perturbed_rows=asked.perturbed_rows,
        seed=asked.seed,
    )
    _check_other(artifact.manifest, other, asked)
    with disk_errors("the cache"), quiet(), progress_on(console) as progress:
        rows, elsewhere = _rows(artifact.manifest, asked, progress)
        check_columns(rows, questions)
        with _served(artifact, asked.variant) as model:
            assessed = assess(model, rows, questions, progress, temperature=_temperature(artifact.manifest))
            assessed = assessed.beside(measure_elsewhere(model, elsewhere, progress))
        if other is None:
            return _evaluated(artifact, assessed)
        with _served(other, asked.against_variant) as model:
            second = answer(model, rows.texts, progress)
            variant = model.variant.name
    return _compared(artifact, other, variant, assessed, second, rows, asked)


def _check_other(manifest: Manifest, other: Artifact | None, asked: Asked) -> None:
    """Before minutes of predicting: raises EvaluationInvalid for other labels, ArtifactNotFound for no such variant."""
    if other is not None:
        check_labels(other.manifest.labels, manifest.labels)
        if asked.against_variant is not None:
            find_variant(other.manifest, asked.against_variant)
    elif asked.against_variant is not None:
        raise EvaluationInvalid("--against-variant goes with --against")


def _evaluated(artifact: Artifact, assessed: Assessed) -> Evaluated:
    manifest = artifact.manifest
    return Evaluated(_title(manifest), artifact.digest, manifest.labels, assessed, None, None)


def _compared(
    artifact: Artifact,
    other: Artifact,
    other_variant: str,
    assessed: Assessed,
    second: Answers,
    rows: Rows,
    asked: Asked,
) -> Evaluated:
    names, labels = artifact.manifest.labels, rows.labels
    scores = in_order(second.scores, other.manifest.labels, names)
    warnings = []
    if (
        asked.data is None
        and other.manifest.provenance.data_fingerprint != artifact.manifest.provenance.data_fingerprint
    ):
        warnings.append(
            f"{_title(other.manifest)} was trained on other data: these rows may be among those it has learned"
        )
    comparison = compare(
        (
            f"{_title(artifact.manifest)} {assessed.assessment.variant}",
            f"{_title(other.manifest)} {other_variant}",
        ),
        (assessed.answers.scores, scores),
        labels,
        names,
        warnings=warnings,
        seed=asked.seed,
    )
    found = _evaluated(artifact, assessed)
    return Evaluated(
        found.model,
        found.digest,
        names,
        assessed,
        comparison,
        evaluate(scores, labels, names, seed=asked.seed),
    )


def _rows(manifest: Manifest, asked: Asked, progress: Progress) -> tuple[Rows, tuple[Rows, ...]]:
    """The rows asked about, and with the model's own test split what its recipe lists under `elsewhere`."""
    if asked.data is None:
        recipe, cache = recipe_of(manifest, asked.recipe), cache_dir(os.environ)
        prepared = prepared_again(manifest, recipe, cache, progress)
        return rows_of(prepared), rows_elsewhere(recipe, prepared, cache, progress)
    reading = reading_for(manifest, _known_recipe(manifest, asked), asked.text_column, asked.label_column)
    return file_rows(asked.data, reading), ()


def _known_recipe(manifest: Manifest, asked: Asked) -> Recipe | None:
    """For a file the recipe only says what its columns and labels are called; one that cannot be read is no loss."""
    try:
        return recipe_of(manifest, asked.recipe)
    except RecipeInvalid:
        if asked.recipe is not None:
            raise
        return None


@contextmanager
def _served(artifact: Artifact, variant: str | None) -> Iterator[Model]:
    """The model as the service would run it, golden answers checked."""
    model = Model.load(artifact, variant=variant)
    try:
        yield model
    finally:
        model.close()


def _temperature(manifest: Manifest) -> float | None:
    return manifest.assessment.calibration.temperature if manifest.assessment else None


def _title(manifest: Manifest) -> str:
    return f"{manifest.name}:{manifest.version}"


def evaluate_recipe(
    name_or_path: str,
    folds: Folds,
    console: Console,
    *,
    against: str | None = None,
    baseline: bool = False,
    run_dir: Path | None = None,
) -> CrossValidated:
    """Cross-validate a recipe over its train and validation splits; `against` another, compared on the rows of both.

    By source, those are the rows whose source neither had learned. A fold that an earlier run finished is kept. Raises
    what loading, preparing and fine-tuning raise.
    """
    check_folds(folds)
    names = [name_or_path, against] if against else [name_or_path]
    recipes = [load_recipe(name) for name in names]
    check_labels(recipes[-1].labels, recipes[0].labels)
    titles = names if against else [recipes[0].name]
    with disk_errors(run_dir or "the run"), quiet(), progress_on(console) as progress:
        ready = [_ready(title, recipe, progress) for title, recipe in zip(titles, recipes, strict=True)]
        plans = _plans(ready, folds)
        folders = (run_dir, run_dir and run_dir / "against")
        first, *others = [
            _in_folds(each, plan, console, progress, baseline=baseline, run_dir=folder)
            for each, plan, folder in zip(ready, plans, folders, strict=False)
        ]
    if not others:
        return CrossValidated(first.found)
    comparison = compare_held_out((titles[0], titles[1]), first, others[0])
    return CrossValidated(first.found, others[0].found, comparison)


@dataclass(frozen=True, slots=True)
class _Ready:
    """A recipe with all that its folds start from; `title` is what it goes by where two are compared."""

    title: str
    recipe: Recipe
    encoder: EncoderFolder
    prepared: Prepared
    elsewhere: tuple[Rows, ...]


def _ready(title: str, recipe: Recipe, progress: Progress) -> _Ready:
    cache = cache_dir(os.environ)
    encoder = fetch_encoder(recipe.encoder, cache, progress)
    prepared = prepare(read_table(recipe, cache, progress), recipe, progress)
    return _Ready(title, recipe, encoder, prepared, rows_elsewhere(recipe, prepared, cache, progress))


def _plans(ready: Sequence[_Ready], folds: Folds) -> list[FoldPlan]:
    """One for each recipe, before hours of training.

    Raises DataInvalid for a fold without a label, EvaluationInvalid when two recipes would answer no row in common.
    """
    first, *others = ready
    with _naming(first):
        plans = [FoldPlan.of(first.prepared, first.recipe, folds)]
    for other in others:
        with _naming(other):
            if folds == "sources":
                rows = plans[0].pool.relabelled(first.recipe.labels, other.recipe.labels)
                plans.append(FoldPlan.beside(other.prepared, other.recipe, rows))
            else:
                plans.append(FoldPlan.of(other.prepared, other.recipe, folds))
    if not set.intersection(*(set(plan.pool.at(plan.asked).texts) for plan in plans)):
        raise EvaluationInvalid(f"--against {ready[-1].title}: it shares no row with {first.title}")
    return plans


@contextmanager
def _naming(ready: _Ready) -> Iterator[None]:
    """Says of which recipe an error speaks."""
    try:
        yield
    except TrainingError as error:
        raise type(error)(f"{ready.title}: {error.message}") from error


def _in_folds(
    ready: _Ready, plan: FoldPlan, console: Console, progress: Progress, *, baseline: bool, run_dir: Path | None
) -> Validated:
    recipe, prepared = ready.recipe, ready.prepared
    folder = run_dir or folds_folder(recipe, prepared)
    with only_user(folder):
        validated = cross_validate(
            recipe,
            prepared,
            ready.encoder,
            folder,
            progress,
            plan,
            baseline=baseline,
            elsewhere=ready.elsewhere,
            on_fold=lambda fold: _say(console, ready.title, plan.folds, fold),
        )
        if not baseline and not validated.found.beside_another:
            keep_folds(folder, recipe, prepared, encoder_digest(ready.encoder.path), validated.found)
    return replace(validated, found=validated.found.model_copy(update={"recipe": ready.title}))


def _say(console: Console, title: str, folds: Folds, fold: FoldResult) -> None:
    # A source's name may hold brackets, which rich would take for markup.
    part = f"fold {fold.name} of {folds}"
    if folds == "sources":
        part = "all of it" if fold.name == NOTHING else f"without {escape(fold.name)}"
    found = "  [dim]found finished[/dim]" if fold.found else ""
    accuracy = shown(fold.metrics["accuracy"])
    console.print(
        f"[green]✓[/green] {escape(title)}, {part}  accuracy {accuracy} on {fold.rows:,} rows{found}", soft_wrap=True
    )


def write_page(path: Path, page: str) -> None:
    """Write the report at once or not at all. Raises TrainingError when the disk refuses."""
    try:
        write_atomically(path, page.encode())
    except OSError as error:
        raise TrainingError(f"--report {path}: {error.strerror or error}") from error
