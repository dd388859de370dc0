"""training/folds.py: every row is held out once, no test row takes part, and a finished fold is kept."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from tests.training import tiny
from training.assess import Rows
from training.errors import EvaluationInvalid
from training.fold_plan import FoldPlan
from training.folds import CrossValidation, FoldResult, Validated, compare_held_out, cross_validate
from training.prepare import Prepared, Split
from training.recipe import Recipe
from training.sources import EncoderFolder

FOLDS = 3
PARCELS = Rows("parcels", ("the parcel is superb", "a dull parcel", "grating parcel"), np.array([1, 0, 0]))
# The same under the other labels, and one row more that is like the first.
TURNED = Rows("turned", (*PARCELS.texts, PARCELS.texts[0]), np.array([0, 1, 1, 0]))
NOTHING = Rows("nothing", (), np.array([], dtype=np.int64))


def validated(
    recipe: Recipe, prepared: Prepared, encoder: EncoderFolder, folder: Path, *, baseline: bool
) -> tuple[Validated, list[FoldResult]]:
    told: list[FoldResult] = []
    with Progress(disable=True) as progress:
        validated = cross_validate(
            recipe,
            prepared,
            encoder,
            folder,
            progress,
            FoldPlan.of(prepared, recipe, FOLDS),
            baseline=baseline,
            elsewhere=(NOTHING, PARCELS, TURNED),
            on_fold=told.append,
        )
    return validated, told


@pytest.mark.parametrize("baseline", [True, False])
def test_folds_are_measured_kept_and_found_again(
    recipe: Recipe, prepared: Prepared, encoder: EncoderFolder, tmp_path: Path, baseline: bool
) -> None:
    first, told = validated(recipe, prepared, encoder, tmp_path, baseline=baseline)
    found = first.found
    assert [fold.fold for fold in told] == [1, 2, 3]
    assert tuple(told) == found.folds
    assert sum(fold.rows for fold in told) == len(prepared.train) + len(prepared.validation)
    assert all(fold.train_rows + fold.rows == sum(each.rows for each in told) for fold in told)
    values = [fold.metrics["accuracy"].value for fold in told]
    assert found.mean["accuracy"].value == pytest.approx(np.mean(values))
    assert found.worst_fold.metrics["accuracy"].value == min(values)
    assert np.mean(first.scores.argmax(axis=1) == first.rows.labels) == pytest.approx(np.mean(values), abs=0.02)
    assert [place.name for place in found.elsewhere] == ["parcels", "turned"]
    for fold in told:
        parcels, turned = (place.metrics["accuracy"].value for place in fold.elsewhere)
        # What is right on a parcel is wrong on the turned one: of three rows each is right once, the fourth perhaps.
        assert round(3 * parcels + 4 * turned) in (3, 4)
    rights = [fold.elsewhere[0].metrics["accuracy"].value for fold in told]
    spread = found.elsewhere[0].metrics["accuracy"]
    assert (spread.low, spread.high) == (min(rights), max(rights))
    assert spread.value == pytest.approx(np.mean(rights))
    # Nothing as large as a model stays.
    assert not list(tmp_path.glob("fold-*"))

    again, _ = validated(recipe, prepared, encoder, tmp_path, baseline=baseline)
    assert all(fold.found for fold in again.found.folds)
    assert again.found.mean == found.mean
    assert again.found.elsewhere == found.elsewhere
    np.testing.assert_array_equal(again.scores, first.scores)
    other = recipe.model_copy(update={"training": recipe.training.model_copy(update={"max_tokens": 32})})
    if baseline:
        anew, _ = validated(other, prepared, encoder, tmp_path, baseline=True)
        assert not any(fold.found for fold in anew.found.folds)


def test_a_run_that_was_stopped_goes_on_with_the_next_fold(
    recipe: Recipe, prepared: Prepared, encoder: EncoderFolder, tmp_path: Path, progress: Progress
) -> None:
    class Stopped(Exception):
        """What a kill looks like from inside."""

    def stop(fold: FoldResult) -> None:
        if fold.fold == 2:
            raise Stopped

    with pytest.raises(Stopped):
        cross_validate(
            recipe,
            prepared,
            encoder,
            tmp_path,
            progress,
            FoldPlan.of(prepared, recipe, FOLDS),
            baseline=True,
            elsewhere=(NOTHING, PARCELS, TURNED),
            on_fold=stop,
        )
    found, _ = validated(recipe, prepared, encoder, tmp_path, baseline=True)
    assert [fold.found for fold in found.found.folds] == [True, True, False]


def answered(rows: Split, right: float, labels: tuple[str, ...] = ("negative", "positive")) -> Validated:
    """Held-out rows of which the first share `right` got its own label."""
    given = np.where(np.arange(len(rows)) < right * len(rows), rows.labels, 1 - rows.labels)
    return Validated(FOUND, labels, rows, np.eye(2)[given])


FOUND = CrossValidation(recipe="tiny", model="baseline", data="reviews", folds=(), mean={})


def rows_named(*texts: str, sources: tuple[str, ...] = ()) -> Split:
    return Split(texts, np.arange(len(texts)) % 2, None, sources)


def test_two_recipes_are_compared_on_the_rows_they_share() -> None:
    films = [f"film {row}" for row in range(60)]
    first = answered(rows_named(*films), 1.0)
    # The same films under the same labels, in another order and among parcels.
    mixed = [text for pair in zip(films, [f"parcel {row}" for row in range(60)], strict=True) for text in pair]
    labels = np.array([films.index(text) % 2 if text in films else 0 for text in mixed])
    second = answered(replace(rows_named(*mixed), labels=labels), 0.5)
    found = compare_held_out(("a", "b"), first, second)
    assert found.rows == 60
    assert found.first_metrics["accuracy"].value == 1.0
    assert found.second_metrics["accuracy"].value == 0.5
    assert found.mcnemar.only_first_right == 30
    assert found.sources == ()


def test_what_they_share_is_compared_by_source_too() -> None:
    rows = rows_named(*(f"text {row}" for row in range(40)), sources=("films",) * 30 + ("parcels",) * 10)
    found = compare_held_out(("a", "b"), answered(rows, 0.75), answered(rows, 0.5))
    assert [(each.name, each.rows) for each in found.sources] == [("films", 30), ("parcels", 10)]
    films, parcels = found.sources
    assert films.first.value == 1.0
    assert films.second.value == pytest.approx(20 / 30)
    assert films.difference.value == pytest.approx(1 / 3)
    assert films.difference.low > 0
    assert (parcels.first.value, parcels.second.value, parcels.difference.value) == (0.0, 0.0, 0.0)


def test_labels_in_another_order_are_the_same_labels() -> None:
    rows = rows_named(*(f"film {row}" for row in range(20)))
    turned = replace(rows, labels=1 - rows.labels)
    found = compare_held_out(("a", "b"), answered(rows, 1.0), answered(turned, 1.0, ("positive", "negative")))
    assert found.accuracy_difference.value == 0
    assert found.second_metrics["accuracy"].value == 1.0


def test_rows_that_mean_something_else_in_the_other_recipe_are_left_out() -> None:
    rows = rows_named(*(f"film {row}" for row in range(20)))
    labels = rows.labels.copy()
    labels[:4] = 1 - labels[:4]
    found = compare_held_out(("a", "b"), answered(rows, 1.0), answered(replace(rows, labels=labels), 1.0))
    assert (found.rows, found.second_metrics["accuracy"].value) == (16, 1.0)
    assert found.warnings == ("4 rows have another label in b and are left out",)


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        (answered(rows_named("parcel", "letter"), 1.0), "--against b: it shares no row with a"),
        (answered(rows_named("film"), 1.0, ("bad", "good")), "its labels are bad, good"),
    ],
)
def test_recipes_that_cannot_be_compared(second: Validated, sentence: str) -> None:
    with pytest.raises(EvaluationInvalid, match=sentence):
        compare_held_out(("a", "b"), answered(rows_named("film"), 1.0), second)


def by_length(prepared: Prepared) -> Prepared:
    """As if long texts came from one source and short ones from another."""
    return tiny.from_sources(prepared, lambda row, text, label: "long" if len(text) > 50 else "short")


def test_held_out_rows_are_counted_by_source(
    recipe: Recipe, prepared: Prepared, encoder: EncoderFolder, tmp_path: Path
) -> None:
    joined = by_length(prepared)
    found, _ = validated(recipe, joined, encoder, tmp_path, baseline=True)
    pool = (*joined.train.sources, *joined.validation.sources)
    assert {each.name: each.rows for each in found.found.sources} == dict(Counter(pool))
    right = found.scores.argmax(axis=1) == found.rows.labels
    for each in found.found.sources:
        assert each.accuracy.value == pytest.approx(right[np.array(found.rows.sources) == each.name].mean())


def test_each_source_is_answered_by_a_model_of_the_others(
    recipe: Recipe, prepared: Prepared, encoder: EncoderFolder, tmp_path: Path, progress: Progress
) -> None:
    joined = by_length(prepared)
    told: list[FoldResult] = []
    plan = FoldPlan.of(joined, recipe, "sources")
    for _ in range(2):
        validated = cross_validate(
            recipe, joined, encoder, tmp_path, progress, plan, baseline=True, on_fold=told.append
        )
    counted = Counter((*joined.train.sources, *joined.validation.sources))
    assert [(fold.name, fold.rows, fold.train_rows) for fold in told[:2]] == [
        ("long", counted["long"], counted["short"]),
        ("short", counted["short"], counted["long"]),
    ]
    assert [fold.found for fold in told] == [False, False, True, True]
    found = validated.found
    assert found.by_source
    assert found.sources == ()
    accuracies = [fold.metrics["accuracy"].value for fold in found.folds]
    mean = found.mean["accuracy"]
    assert (mean.low, mean.value, mean.high) == pytest.approx((min(accuracies), np.mean(accuracies), max(accuracies)))


def test_another_recipe_is_asked_about_a_source_it_never_had(
    recipe: Recipe, prepared: Prepared, encoder: EncoderFolder, tmp_path: Path, progress: Progress
) -> None:
    joined = by_length(prepared)
    long = replace(joined, train=of_source(joined.train, "long"), validation=of_source(joined.validation, "long"))
    plan = FoldPlan.beside(long, recipe, FoldPlan.of(joined, recipe, "sources").pool)
    found = cross_validate(recipe, long, encoder, tmp_path, progress, plan, baseline=True)
    assert set(found.rows.sources) == {"short"}
    (only,) = found.found.folds
    assert (only.train_rows, only.rows) == (len(long.train) + len(long.validation), len(found.rows))
    assert np.mean(found.scores.argmax(axis=1) == found.rows.labels) == only.metrics["accuracy"].value


def of_source(split: Split, name: str) -> Split:
    return split.at(np.flatnonzero(np.array(split.sources) == name))


def test_scores_of_other_sources_are_not_taken_for_these(
    recipe: Recipe, prepared: Prepared, encoder: EncoderFolder, tmp_path: Path, progress: Progress
) -> None:
    renamed = tiny.from_sources(prepared, lambda row, text, label: "short" if len(text) > 50 else "long")
    for rows in (by_length(prepared), renamed):
        plan = FoldPlan.of(rows, recipe, "sources")
        made = cross_validate(recipe, rows, encoder, tmp_path, progress, plan, baseline=True)
        assert not any(fold.found for fold in made.found.folds)
