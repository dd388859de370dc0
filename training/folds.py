"""Cross-validation of a recipe, in k folds or by source: every row is held out once, and a finished fold is kept.

    <run_dir>/fold-<i>/     the fine-tuning of fold i; removed when its scores are kept
    <run_dir>/steps/        scores of finished folds, and the baseline's embeddings

Which rows a fold holds out: training/fold_plan.py.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Literal

import numpy as np
import numpy.typing as npt
import transformers
from pydantic import BaseModel, ConfigDict
from rich.progress import Progress

from artifact.manifest import Estimate, SliceResult
from training.assess import SOURCE, Rows
from training.baseline import classify, embed
from training.compare import Comparison, check_labels, compare, in_order
from training.errors import EvaluationInvalid
from training.evaluate import evaluate
from training.finetune import fine_tune, probabilities_of
from training.fold_plan import FoldPlan
from training.intervals import mean_over_folds, proportion
from training.keys import encoder_digest, run_key
from training.prepare import Prepared, Split
from training.quiet import quiet
from training.recipe import Recipe
from training.sources import EncoderFolder
from training.steps import Steps, key_of

Floats = npt.NDArray[np.float64]
OnFold = Callable[["FoldResult"], None]


class Place(BaseModel):
    """Data that nothing is learned from, and what was measured there."""

    model_config = ConfigDict(frozen=True)

    name: str
    metrics: dict[str, Estimate]


class FoldResult(BaseModel):
    """One fold: metrics on the rows it held out, and elsewhere. `found`: it had been finished by an earlier run.

    `name` is what it held out: the fold's number, or a source.
    """

    model_config = ConfigDict(frozen=True)

    fold: int
    name: str
    train_rows: int
    rows: int
    metrics: dict[str, Estimate]
    elsewhere: tuple[Place, ...] = ()
    found: bool = False


class CrossValidation(BaseModel):
    """All folds, and each metric's mean over them with the interval of `intervals.mean_over_folds`.

    Folds `by_source` are no sample of anything: their means come with the lowest fold and the highest. Folds
    `beside_another` answer that recipe's rows (training/fold_plan.py), and have no mean. `sources`
    holds the rows of all folds by where they come from, `elsewhere` each metric on data that nothing is learned from:
    the mean over the folds' models, the lowest of them and the highest.
    """

    model_config = ConfigDict(frozen=True)

    recipe: str
    model: str
    data: str
    by_source: bool = False
    beside_another: bool = False
    folds: tuple[FoldResult, ...]
    mean: dict[str, Estimate]
    sources: tuple[SliceResult, ...] = ()
    elsewhere: tuple[Place, ...] = ()

    @property
    def kind(self) -> Literal["fold", "source"]:
        """What is held out at a time."""
        return "source" if self.by_source else "fold"

    @property
    def worst_fold(self) -> FoldResult:
        """The fold with the lowest accuracy."""
        return min(self.folds, key=lambda fold: fold.metrics["accuracy"].value)


@dataclass(frozen=True, slots=True)
class Validated:
    """What was found, and every row once with the answer of the fold that held it out: `scores` (rows, labels)."""

    found: CrossValidation
    labels: tuple[str, ...]
    rows: Split
    scores: Floats


def cross_validate(
    recipe: Recipe,
    prepared: Prepared,
    encoder: EncoderFolder,
    run_dir: Path,
    progress: Progress,
    plan: FoldPlan,
    *,
    baseline: bool = False,
    elsewhere: Sequence[Rows] = (),
    callbacks: Sequence[transformers.TrainerCallback] = (),
    on_fold: OnFold = lambda _: None,
) -> Validated:
    """Fine-tune for each fold of the plan, or with `baseline` fit the frozen encoder's logistic regression for each.

    Each fold's model also answers the rows `elsewhere`, where there are any; `callbacks` watch the fine-tuning. Raises
    what that raises; finished folds are kept in any case.
    """
    by_source = plan.folds == "sources"
    places = tuple(rows for rows in elsewhere if rows.texts)
    kind = _Baseline if baseline else _FineTuned
    job = kind(recipe, prepared, encoder, run_dir, progress, plan, places, tuple(callbacks))
    results, scores = [], np.zeros((len(plan.pool), len(recipe.labels)))
    for fold in range(len(plan.names)):
        result, scores[plan.fold == fold] = job.result(fold)
        results.append(result)
        on_fold(result)
    found = CrossValidation(
        recipe=recipe.name,
        model=job.title,
        data=prepared.name,
        by_source=by_source,
        beside_another=plan.beside_another,
        folds=tuple(results),
        mean=_mean(plan, [each.metrics for each in results]),
        sources=() if by_source else _by_source(plan.pool, scores),
        elsewhere=tuple(
            Place(name=rows.name, metrics=_over_folds([each.elsewhere[at].metrics for each in results], _range))
            for at, rows in enumerate(places)
        ),
    )
    return Validated(found, recipe.labels, plan.pool.at(plan.asked), scores[plan.asked])


def compare_held_out(names: tuple[str, str], first: Validated, second: Validated) -> Comparison:
    """Compare two recipes on the rows they share, each answered by a fold that had not learned it.

    The paired figures are those of these models: what another seed would change is not in them. Rows that have
    another label in the other recipe are left out, and those that no model of it may answer; both are counted. Raises
    EvaluationInvalid when they have other labels or no row in common.
    """
    check_labels(second.labels, first.labels)
    place = {text: row for row, text in enumerate(second.rows.texts)}
    shared = [(row, place[text]) for row, text in enumerate(first.rows.texts) if text in place]
    if first.found.by_source:
        shared = [(one, other) for one, other in shared if first.rows.sources[one] == second.rows.sources[other]]
    agreed = [(one, other) for one, other in shared if _label(first, one) == _label(second, other)]
    if not agreed:
        raise EvaluationInvalid(f"--against {names[1]}: it shares no row with {names[0]}")
    own, others = (list(rows) for rows in zip(*agreed, strict=True))
    warnings = list(_left_out(names[1], second.found, len(first.rows) - len(shared), len(shared) - len(agreed)))
    scores = (first.scores[own], in_order(second.scores, second.labels, first.labels)[others])
    rows = first.rows.at(np.array(own))
    return compare(names, scores, rows.labels, first.labels, sources=rows.sources, warnings=warnings)


def _left_out(name: str, found: CrossValidation, unanswered: int, relabelled: int) -> Iterator[str]:
    if unanswered and found.beside_another:
        yield f"{unanswered:,} rows are left out: no model of {name} may be asked about them"
    if relabelled:
        yield f"{relabelled:,} rows have another label in {name} and are left out"


def _label(validated: Validated, row: int) -> str:
    return validated.labels[int(validated.rows.labels[row])]


def _mean(plan: FoldPlan, metrics: Sequence[Mapping[str, Estimate]]) -> dict[str, Estimate]:
    """Nothing beside another recipe, whose sources its few models answer together."""
    if plan.beside_another:
        return {}
    return _over_folds(metrics, _range if plan.folds == "sources" else mean_over_folds)


def _over_folds(
    metrics: Sequence[Mapping[str, Estimate]], summary: Callable[[Sequence[float]], Estimate]
) -> dict[str, Estimate]:
    return {name: summary([each[name].value for each in metrics]) for name in metrics[0]}


def _range(values: Sequence[float]) -> Estimate:
    return Estimate(value=fmean(values), low=min(values), high=max(values))


def _by_source(rows: Split, scores: Floats) -> tuple[SliceResult, ...]:
    """Accuracy by source, with Wilson's interval; nothing where the data has one source."""
    right, names = scores.argmax(axis=1) == rows.labels, np.array(rows.sources)
    masks = {name: names == name for name in sorted(set(rows.sources))}
    return tuple(
        SliceResult(
            by=SOURCE, name=name, rows=int(mask.sum()), accuracy=proportion(int(right[mask].sum()), int(mask.sum()))
        )
        for name, mask in masks.items()
    )


@dataclass(frozen=True)
class _Job:
    """What every fold needs; how a fold's scores are made differs."""

    recipe: Recipe
    prepared: Prepared
    encoder: EncoderFolder
    run_dir: Path
    progress: Progress
    plan: FoldPlan
    elsewhere: tuple[Rows, ...]
    callbacks: tuple[transformers.TrainerCallback, ...]

    title = ""

    @cached_property
    def texts_elsewhere(self) -> tuple[str, ...]:
        """Of all places, one after another."""
        return tuple(text for rows in self.elsewhere for text in rows.texts)

    @cached_property
    def encoder_digest(self) -> str:
        """Of the folder that every fold starts from."""
        return encoder_digest(self.encoder.path)

    def result(self, fold: int) -> tuple[FoldResult, Floats]:
        """The fold's metrics, and its scores of the rows it held out, from kept scores where there are any."""
        steps, name = Steps(self.run_dir / "steps"), f"{self.title}-{self.plan.folds}-fold-{fold}"
        train, validation, held = self.plan.masks(fold)
        labels = self.plan.pool.labels[held]
        scores = steps.load_array(name, self._key(fold))
        found = scores is not None
        if scores is None:
            scores = steps.save_array(name, self._key(fold), self.scores(fold, steps))
            self.clear(fold)
        ends = np.cumsum([len(labels), *(len(rows.texts) for rows in self.elsewhere)])
        own, *others = np.split(scores, ends[:-1])
        result = FoldResult(
            fold=fold + 1,
            name=self.plan.names[fold],
            train_rows=int((train | validation).sum()),
            rows=len(labels),
            metrics=self._metrics(own, labels),
            elsewhere=tuple(
                Place(name=rows.name, metrics=self._metrics(part, rows.labels))
                for rows, part in zip(self.elsewhere, others, strict=True)
            ),
            found=found,
        )
        return result, own

    def _metrics(self, scores: Floats, labels: npt.NDArray[np.int64]) -> dict[str, Estimate]:
        return evaluate(scores, labels, self.recipe.labels).metrics

    def _key(self, fold: int) -> str:
        # Not the code, which the steps of a pipeline are keyed by: a fold is kept on the terms of a fine-tuning.
        parts = [run_key(self.recipe, self.prepared), self.prepared.fingerprint, self.title, *self.plan.key(fold)]
        parts.append(self.encoder_digest)
        return key_of(*parts, *([key_of(*self.texts_elsewhere)] if self.elsewhere else []))

    def scores(self, fold: int, steps: Steps) -> Floats:
        """Probabilities of shape (held-out rows and all elsewhere, labels)."""
        raise NotImplementedError

    def clear(self, fold: int) -> None:
        """Remove what is not needed once the scores are kept."""


class _FineTuned(_Job):
    title = "fine-tuned"

    def scores(self, fold: int, steps: Steps) -> Floats:
        """Fine-tune on the other folds; torch's probabilities in fp32."""
        folder, prepared = self._folder(fold), self._prepared(fold)
        tuned = fine_tune(self.recipe, prepared, self.encoder, folder, self.progress, self.callbacks)
        texts = self.plan.pool.at(np.flatnonzero(self.plan.masks(fold)[2])).texts
        return probabilities_of(tuned, (*texts, *self.texts_elsewhere), self.progress)

    def clear(self, fold: int) -> None:
        """A fold's model is as large as the encoder."""
        shutil.rmtree(self._folder(fold), ignore_errors=True)

    def _folder(self, fold: int) -> Path:
        return self.run_dir / f"fold-{fold + 1}"

    def _prepared(self, fold: int) -> Prepared:
        train, validation, held = (self.plan.pool.at(np.flatnonzero(mask)) for mask in self.plan.masks(fold))
        fingerprint = f"sha256:{key_of(self.prepared.fingerprint, *self.plan.key(fold))}"
        return replace(self.prepared, train=train, validation=validation, test=held, fingerprint=fingerprint)


class _Baseline(_Job):
    title = "baseline"

    def scores(self, fold: int, steps: Steps) -> Floats:
        """The texts are embedded once, for all folds."""
        embedded = self._embedded(steps)
        labels = self.plan.pool.labels
        train, validation, held = (np.flatnonzero(mask) for mask in self.plan.masks(fold))
        asked = np.concatenate([held, np.arange(len(labels), len(embedded))])
        return classify((embedded[train], labels[train]), (embedded[validation], labels[validation]), embedded[asked])

    def _embedded(self, steps: Steps) -> npt.NDArray[np.float32]:
        section = self.recipe.training
        texts = (*self.plan.pool.texts, *self.texts_elsewhere)
        key = key_of(self.recipe.encoder.model_dump(mode="json"), section.row_tokens, *texts)
        found = steps.load_array("embeddings", key)
        if found is None:
            with quiet():
                found = embed(self.encoder, texts, section.row_tokens, self.progress)
            steps.save_array("embeddings", key, found)
        return found
