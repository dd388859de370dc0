"""training/folds.py: every row is held out once, no test row takes part, and a finished fold is kept."""

from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from tests.training import tiny
from training.errors import DataInvalid, EvaluationInvalid
from training.folds import CrossValidation, FoldPlan, FoldResult, cross_validate
from training.prepare import Prepared, prepare
from training.recipe import Recipe
from training.sources import EncoderFolder

FOLDS = 3


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return tiny.recipe()


@pytest.fixture(scope="module")
def prepared(recipe: Recipe) -> Prepared:
    with Progress(disable=True) as progress:
        return prepare(tiny.table(), recipe, progress)


def test_every_row_but_the_test_split_is_held_out_once(prepared: Prepared, recipe: Recipe) -> None:
    plan = FoldPlan.of(prepared, recipe, FOLDS)
    assert set(plan.pool.texts) == set(prepared.train.texts) | set(prepared.validation.texts)
    held = np.stack([plan.masks(fold)[2] for fold in range(FOLDS)])
    assert held.sum(axis=0).tolist() == [1] * len(plan.pool)
    for fold in range(FOLDS):
        assert np.stack(plan.masks(fold)).sum(axis=0).tolist() == [1] * len(plan.pool)


def test_a_row_keeps_its_fold_when_others_come(recipe: Recipe, prepared: Prepared, progress: Progress) -> None:
    more = prepare(tiny.table(400), recipe, progress)
    folds = [
        dict(zip(plan.pool.texts, plan.fold.tolist(), strict=True))
        for plan in (FoldPlan.of(prepared, recipe, FOLDS), FoldPlan.of(more, recipe, FOLDS))
    ]
    both = folds[0].keys() & folds[1].keys()
    assert len(both) > 200
    assert all(folds[0][text] == folds[1][text] for text in both)


@pytest.mark.parametrize("folds", [-1, 0, 1, 21])
def test_a_number_of_folds_that_cannot_be(prepared: Prepared, recipe: Recipe, folds: int) -> None:
    with pytest.raises(EvaluationInvalid, match="must be from 2 to 20"):
        FoldPlan.of(prepared, recipe, folds)


def test_a_fold_without_a_label_is_said_before_any_work(
    recipe: Recipe, prepared: Prepared, encoder: EncoderFolder, tmp_path: Path, progress: Progress
) -> None:
    few = prepare(tiny.table(60), tiny.recipe(), progress)
    with pytest.raises(DataInvalid, match=r"fold \d+ of 20: its \d+ held-out rows hold no row labelled .*fewer folds"):
        cross_validate(recipe, few, encoder, tmp_path, progress, folds=20)
    assert list(tmp_path.iterdir()) == []


def validated(
    recipe: Recipe, prepared: Prepared, encoder: EncoderFolder, folder: Path, *, baseline: bool
) -> tuple[CrossValidation, list[FoldResult]]:
    told: list[FoldResult] = []
    with Progress(disable=True) as progress:
        found = cross_validate(
            recipe, prepared, encoder, folder, progress, folds=FOLDS, baseline=baseline, on_fold=told.append
        )
    return found, told


@pytest.mark.parametrize("baseline", [True, False])
def test_folds_are_measured_kept_and_found_again(
    recipe: Recipe, prepared: Prepared, encoder: EncoderFolder, tmp_path: Path, baseline: bool
) -> None:
    found, told = validated(recipe, prepared, encoder, tmp_path, baseline=baseline)
    assert [fold.fold for fold in told] == [1, 2, 3]
    assert tuple(told) == found.folds
    assert sum(fold.rows for fold in told) == len(prepared.train) + len(prepared.validation)
    assert all(fold.train_rows + fold.rows == sum(each.rows for each in told) for fold in told)
    values = [fold.metrics["accuracy"].value for fold in told]
    assert found.mean["accuracy"].value == pytest.approx(np.mean(values))
    assert found.worst_fold.metrics["accuracy"].value == min(values)
    # Nothing as large as a model stays.
    assert not list(tmp_path.glob("fold-*"))

    again, _ = validated(recipe, prepared, encoder, tmp_path, baseline=baseline)
    assert all(fold.found for fold in again.folds)
    assert again.mean == found.mean
    other = recipe.model_copy(update={"training": recipe.training.model_copy(update={"max_tokens": 32})})
    if baseline:
        anew, _ = validated(other, prepared, encoder, tmp_path, baseline=True)
        assert not any(fold.found for fold in anew.folds)


def test_a_run_that_was_stopped_goes_on_with_the_next_fold(
    recipe: Recipe, prepared: Prepared, encoder: EncoderFolder, tmp_path: Path, progress: Progress
) -> None:
    class Stopped(Exception):
        """What a kill looks like from inside."""

    def stop(fold: FoldResult) -> None:
        if fold.fold == 2:
            raise Stopped

    with pytest.raises(Stopped):
        cross_validate(recipe, prepared, encoder, tmp_path, progress, folds=FOLDS, baseline=True, on_fold=stop)
    found, _ = validated(recipe, prepared, encoder, tmp_path, baseline=True)
    assert [fold.found for fold in found.folds] == [True, True, False]
