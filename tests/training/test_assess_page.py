"""training/assess_page.py: every figure is shown, and what was not measured says so."""

import pytest

from artifact.manifest import Estimate
from tests.training.findings import assessment, findings
from tests.training.test_report import Page
from training.assess_page import (
    assessment_sections,
    evaluation_plots,
    metrics_table,
    pair_in_words,
    signed,
    slice_verdict,
)


@pytest.fixture(scope="module")
def text() -> str:
    return Page("".join(assessment_sections(assessment()))).text


@pytest.mark.parametrize(
    "figure",
    [
        "0.610 (0.500 to 0.710)",
        "-0.290 (-0.400 to -0.180)",
        "horror | <b>",
        "worst",
        "0.412",
        "1 of 1",
        "“About {term}.” cats 0.70, dogs 0.29 (positive)",
        "0.300 (0.200 to 0.400)",
        "Temperature in the weights: 1.500",
        "0.090 (0.070 to 0.110)",
    ],
)
def test_every_figure_is_there(text: str, figure: str) -> None:
    assert figure in text


def test_nothing_measured_reads_so() -> None:
    shown = Page("".join(assessment_sections(None))).text
    assert shown.count("not measured") == 3
    bare = assessment().model_copy(update={"bias": (), "robustness": (), "slices": (), "worst_slice": None})
    assert Page("".join(assessment_sections(bare))).text.count("not measured") >= 2


def test_the_verdict_says_whether_it_may_be_chance() -> None:
    found = assessment()
    assert "The worst slice is genre: horror | <b>" in slice_verdict(found)
    assert "lies below 0" in slice_verdict(found)
    assert found.worst_slice is not None
    near = Estimate(value=-0.1, low=-0.2, high=0.1)
    unsure = found.model_copy(update={"worst_slice": found.worst_slice.model_copy(update={"difference": near})})
    assert "it may be chance" in slice_verdict(unsure)
    assert "No slice has enough rows" in slice_verdict(found.model_copy(update={"worst_slice": None}))


def test_one_model_or_two_beside_each_other() -> None:
    found = findings()
    one = metrics_table({"ours": found.evaluation.metrics})
    two = metrics_table({"ours": found.evaluation.metrics, "theirs": found.baseline.metrics})
    assert two.count("<circle") == 2 * one.count("<circle")
    assert "ours above, theirs below" in two
    assert Page(evaluation_plots({"ours": found.evaluation}, ["a", "b"])).tags.count("svg") == 2


def test_signs_and_pairs() -> None:
    assert signed(Estimate(value=0.0, low=-0.01, high=0.02)) == "+0.000 (-0.010 to +0.020)"
    assert signed(None) == ""
    assert pair_in_words(assessment().bias[0].worst).startswith("“About {term}.” cats")
