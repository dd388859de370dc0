"""training/evaluation_page.py: one page that loads nothing, with every section."""

import re
from dataclasses import replace

import pytest

from tests.training.made_evaluations import evaluated, left_out, validated
from tests.training.test_report import Page
from training.evaluation_page import render_folds, render_model


@pytest.mark.parametrize(
    "page",
    [
        render_model(evaluated()),
        render_model(evaluated(beside=True)),
        render_folds(validated()),
        render_folds(validated(beside=True)),
    ],
)
def test_a_page_is_whole_and_loads_nothing(page: str) -> None:
    parsed = Page(page)
    assert not {"script", "link", "img", "iframe", "object", "image", "use"} & set(parsed.tags)
    assert not re.search(r"url\(|@import|https?://", page)
    assert "default-src 'none'" in page
    assert "svg" in parsed.tags


def test_a_model_has_every_section() -> None:
    text = Page(render_model(evaluated(beside=True))).text
    for title in ("What it is worth", "On these rows", "Where it is weaker", "Swapped terms", "Changed texts"):
        assert title in text
    for figure in ("accuracy on the worst slice", "genre: horror | <b>", "McNemar", "mind <this>", "group: pets"):
        assert figure in text


def test_a_model_without_a_worst_slice_says_so() -> None:
    found = evaluated()
    bare = found.assessed.assessment.model_copy(update={"worst_slice": None, "bias": ()})
    text = Page(render_model(replace(found, assessed=replace(found.assessed, assessment=bare)))).text
    assert "no slice has enough rows" in text
    assert "not measured" in text


def test_folds_are_drawn_and_listed() -> None:
    text = Page(render_folds(validated())).text
    assert "Cross-validated on <reviews>." in text
    assert "0.800 (0.580 to 1.020)" in text
    assert "fold 2, 100 rows" in text
    assert "<films>" in text
    assert "0.590 to 0.640" in text
    assert "McNemar" not in text


def test_sources_left_out_are_named() -> None:
    text = Page(render_folds(left_out())).text
    assert "source by source" in text
    assert "Each model learned from all sources but one" in text
    assert "<source 2>, 100 rows" in text
    assert "<source 3>" in text
    assert "lowest 0.700, highest 0.900" in text
    assert "Nadeau" not in text
    assert "95% interval 0.700" not in text


def test_a_recipe_that_had_none_of_the_sources_is_compared_on_each() -> None:
    text = Page(render_folds(left_out(beside=True))).text
    assert "The 100 rows that both answer without their source" in text
    assert "other.toml: its models" in text
    assert "asked about 100 rows of sources that it had not learned" in text
    assert "other.toml: mean over" not in text
    assert "<source 2>" in text


def test_a_recipe_beside_another_is_compared_on_what_both_hold_out() -> None:
    text = Page(render_folds(validated(beside=True))).text
    assert "The 100 rows that both hold out" in text
    assert "Accuracy of tiny minus other.toml: +0.200" in text
    assert "other: fold by fold" in text
