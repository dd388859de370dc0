"""training/fold_plan.py: which rows are held out together."""

from dataclasses import replace

import numpy as np
import pytest
from rich.progress import Progress

from tests.training import tiny
from training.errors import DataInvalid, EvaluationInvalid
from training.fold_plan import FoldPlan, Folds, parse_folds
from training.prepare import Prepared, Split, prepare
from training.recipe import Recipe

FOLDS = 3


def spread(prepared: Prepared, *sources: str) -> Prepared:
    """The rows as if they came from `sources` in turn."""
    return tiny.from_sources(prepared, lambda row, text, label: sources[row % len(sources)])


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


def test_by_source_each_is_held_out_whole_and_once(prepared: Prepared, recipe: Recipe) -> None:
    plan = FoldPlan.of(spread(prepared, "tweets", "films", "news"), recipe, "sources")
    assert plan.names == ("films", "news", "tweets")
    for fold, name in enumerate(plan.names):
        learned, chosen, held = plan.masks(fold)
        assert set(np.array(plan.pool.sources)[held]) == {name}
        assert name not in np.array(plan.pool.sources)[learned | chosen]
        assert (learned | chosen | held).all()


@pytest.mark.parametrize("sources", [(), ("films",)])
def test_one_source_cannot_be_left_out(prepared: Prepared, recipe: Recipe, sources: tuple[str, ...]) -> None:
    joined = spread(prepared, *sources) if sources else prepared
    with pytest.raises(EvaluationInvalid, match=r"needs two sources or more under data\.sources"):
        FoldPlan.of(joined, recipe, "sources")


def test_a_source_of_one_label_cannot_be_measured(prepared: Prepared, recipe: Recipe) -> None:
    joined = tiny.from_sources(prepared, lambda row, text, label: "praise" if label else "complaints")
    with pytest.raises(DataInvalid, match=r"without complaints: its \d+ training rows hold no row labelled negative$"):
        FoldPlan.of(joined, recipe, "sources")


def test_a_fold_without_a_label_is_refused(recipe: Recipe, progress: Progress) -> None:
    few = prepare(tiny.table(60), tiny.recipe(), progress)
    with pytest.raises(DataInvalid, match=r"fold \d+ of 20: its \d+ held-out rows hold no row labelled .*fewer folds"):
        FoldPlan.of(few, recipe, 20)


def test_beside_another_recipe_a_model_answers_what_it_learned_nothing_of(prepared: Prepared, recipe: Recipe) -> None:
    own = spread(prepared, "films", "news")
    asked = rows_of("tweets", "new tweet", "other tweet", *own.train.texts[:1]), rows_of("films", "new film", "film")
    plan = FoldPlan.beside(own, recipe, joined(*asked))
    assert plan.names == ("films", "(nothing)")
    sources, texts = np.array(plan.pool.sources), np.array(plan.pool.texts)
    learned, chosen, held = plan.masks(0)
    assert set(sources[held]) == {"films"}
    assert set(sources[learned | chosen]) == {"news"}
    learned, chosen, held = plan.masks(1)
    # The tweet that it learned as something else is not asked about, and it never learns what is only asked about.
    assert texts[held].tolist() == ["new tweet", "other tweet"]
    assert set(sources[learned | chosen]) == {"films", "news"}
    assert set(sources[plan.asked]) == {"films", "tweets"}
    # A film that only the other recipe has is asked about as films are.
    assert {"new film", "film"} <= set(texts[plan.masks(0)[2]])


def test_what_a_recipe_keeps_for_its_test_nobody_asks_it(prepared: Prepared, recipe: Recipe) -> None:
    own = spread(prepared, "films", "news")
    asked = joined(rows_of("tweets", *own.test.texts[:5]), rows_of("tweets", "one", "two"))
    plan = FoldPlan.beside(own, recipe, asked)
    assert [plan.pool.texts[row] for row in plan.asked] == ["one", "two"]


def test_a_few_rows_of_one_label_do_not_spoil_the_rest(prepared: Prepared, recipe: Recipe) -> None:
    own = spread(prepared, "films", "news")
    plan = FoldPlan.beside(own, recipe, joined(rows_of("tweets", "one"), rows_of("films", "new film", "film")))
    assert plan.names == ("films",)
    assert "one" not in plan.pool.texts


def test_folds_that_hold_out_something_else_have_other_keys(prepared: Prepared, recipe: Recipe) -> None:
    own = spread(prepared, "films", "news", "tweets")
    alone = FoldPlan.of(own, recipe, "sources")
    pool = alone.pool
    films, news = (pool.at(np.flatnonzero(np.array(pool.sources) == name)) for name in ("films", "news"))
    plans = [alone, FoldPlan.beside(own, recipe, films), FoldPlan.beside(own, recipe, news)]
    assert [plan.names[0] for plan in plans] == ["films", "films", "news"]
    assert len({plan.key(0) for plan in plans}) == 3


def test_a_recipe_of_one_source_cannot_leave_it_out(prepared: Prepared, recipe: Recipe) -> None:
    own = replace(prepared, name="films")
    plan = FoldPlan.beside(own, recipe, joined(rows_of("tweets", "a", "b"), rows_of("films", "c", "d")))
    assert plan.names == ("(nothing)",)
    assert [plan.pool.texts[row] for row in plan.asked] == ["a", "b"]
    other = FoldPlan.beside(own, recipe, joined(rows_of("tweets", "a", "z"), rows_of("films", "c", "d")))
    assert other.key(0) != plan.key(0)
    assert FoldPlan.beside(own, recipe, rows_of("films", "c", "d")).asked.tolist() == []


def rows_of(source: str, *texts: str) -> Split:
    return Split(texts, np.arange(len(texts)) % 2, None, (source,) * len(texts))


def joined(one: Split, other: Split) -> Split:
    labels = np.concatenate([one.labels, other.labels])
    return Split(one.texts + other.texts, labels, None, one.sources + other.sources)


@pytest.mark.parametrize(("text", "folds"), [("5", 5), ("sources", "sources"), ("1", 1)])
def test_what_may_stand_behind_folds(text: str, folds: Folds) -> None:
    assert parse_folds(text) == folds


def test_what_is_neither_is_refused() -> None:
    with pytest.raises(EvaluationInvalid, match="--folds many: must be a number from 2 to 20, or sources"):
        parse_folds("many")
