"""The model card is valid front matter and honest prose."""

from typing import Any

import pytest
import yaml

from artifact.manifest import Estimate, FoldsResult, Provenance, SliceResult, Uncut
from tests.training import tiny
from tests.training.findings import REASON, assessment, findings
from training.card import render_card
from training.report import Findings, render_report
from training.sources import EncoderFolder


def card(*, skill: float = 2.0, **changes: object) -> tuple[Any, str]:
    found = findings(skill=skill, **changes)
    published = found.manifest.model_copy(update={"variants": found.manifest.variants[:1]})
    text = render_card(found, published)
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def test_the_front_matter_is_what_hubs_read() -> None:
    front, _ = card()
    assert front["pipeline_tag"] == "text-classification"
    assert front["library_name"] == "slipway"
    assert front["license"] == "apache-2.0"
    [result] = front["model-index"][0]["results"]
    accuracy = next(each for each in result["metrics"] if each["type"] == "accuracy")
    assert 0.5 < accuracy["value"] <= 1.0


def test_what_is_not_known_is_left_out_of_the_front_matter() -> None:
    front, _ = card(encoder=EncoderFolder(findings().encoder.path, "mine", "unknown", "local folder"))
    assert "license" not in front
    assert "base_model" not in front
    assert "language" not in front


def test_a_hub_encoder_is_named_as_the_base_model() -> None:
    front, _ = card(encoder=EncoderFolder(findings().encoder.path, "some-org/some-bert", "mit", "hub"))
    assert front["base_model"] == "some-org/some-bert"


def test_the_refused_variant_and_its_reason_are_in_the_card() -> None:
    _, body = card()
    assert f"- int8: {REASON}" in body
    assert "| int8 | refused | not measured |" in body


def test_what_nobody_measured_reads_so() -> None:
    _, body = card()
    assert "Energy and emissions: not measured." in body
    assert "platform: not measured" in body


def test_a_model_that_is_no_better_says_so() -> None:
    assert "beats its baseline" in card()[1]
    assert "not shown to be better" in card(skill=0.3)[1]


def test_an_assessment_fills_the_tables() -> None:
    found = findings()
    _, body = card(manifest=found.manifest.model_copy(update={"assessment": assessment()}))
    assert "| genre: horror \\| <b> | 80 | 0.610 (0.500 to 0.710) | -0.290 (-0.400 to -0.180) |" in body
    assert "| pets | 0.200 | 0.412 | 1 of 1 | “About {term}.” cats 0.70, dogs 0.29 (positive) |" in body
    assert "| typos | 190 | 0.900 (0.850 to 0.940) | 0.610 (0.500 to 0.710) | 0.300 (0.200 to 0.400) |" in body
    assert "temperature of 1.500" in body
    assert "neutral sentence moved a score by up to 0.41 (pets)." in body
    assert "without it 0.090 (0.070 to 0.110), with it 0.040 (0.030 to 0.060)" in body


def test_a_recipe_that_a_study_chose_says_so() -> None:
    chosen = {"trial": 4, "trials": 3, "sampler": "grid", "objective": "accuracy", "quality": 0.8777, "folds": 3}
    chosen["values"] = {"training.epochs": 4, "training.dropout": 0.2}
    _, body = card(recipe=tiny.recipe(chosen=chosen, training__epochs=4, training__dropout=0.2))
    assert (
        "A study (`slipway tune`, grid) chose training.epochs = 4, training.dropout = 0.2: its trial number 4, the "
        "best of 3 that ended, had accuracy 0.8777 in the mean of 3 folds."
    ) in body
    # Somebody changed a value since.
    assert "slipway tune" not in card(recipe=tiny.recipe(chosen=chosen, training__epochs=5, training__dropout=0.2))[1]
    assert "slipway tune" not in card()[1]


def test_what_making_it_smaller_cost_is_told_or_not_measured() -> None:
    found = findings()
    facts: dict[str, object] = {"compressed": "layers=3"}
    _, body = card(manifest=found.manifest.model_copy(update={"provenance": _with(found, facts)}))
    assert "`layers=3`. What that cost: not measured." in body
    facts["uncut"] = Uncut(rows=50, accuracy_difference=Estimate(value=-0.01, low=-0.02, high=0.0), agreement=0.95)
    _, body = card(manifest=found.manifest.model_copy(update={"provenance": _with(found, facts)}))
    assert "-0.010 (-0.020 to +0.000) on 50 test rows; 95.0% of the labels are equal" in body


def _with(found: Findings, facts: dict[str, object]) -> Provenance:
    return found.manifest.provenance.model_copy(update=facts)


def test_cross_validation_is_told_by_fold_and_by_kind_of_text() -> None:
    accuracy = {"accuracy": Estimate(value=0.8, low=0.7, high=0.9)}
    folds = (
        FoldsResult(by="fold", models=3, rows=1_200, metrics=accuracy),
        FoldsResult(by="source", models=5, rows=2_400, metrics=accuracy),
    )
    found = findings()
    provenance = found.manifest.provenance.model_copy(update={"folds": folds})
    manifest = found.manifest.model_copy(update={"provenance": provenance})
    _, body = card(manifest=manifest)
    assert "accuracy 0.800 (0.700 to 0.900), the mean over 3 folds of 1,200 rows; accuracy" in body
    assert "the mean (lowest, highest) over 5 kinds of text, 2,400 rows, of models that had not learned" in body
    page = render_report(findings(manifest=manifest))
    assert all(told in page for told in ("3 folds", "1,200", "5 kinds of text left out in turn", "2,400"))


def test_what_is_out_of_domain_is_stated_apart() -> None:
    found = findings()
    elsewhere = (SliceResult(by="elsewhere", name="Tweets", rows=4, accuracy=Estimate(value=0.5, low=0.2, high=0.8)),)
    changed = assessment().model_copy(update={"elsewhere": elsewhere})
    _, body = card(manifest=found.manifest.model_copy(update={"assessment": changed}))
    assert "Out of domain, on data of other kinds that was never learned" in body
    assert "| Tweets | 4 | 0.500 (0.200 to 0.800) |" in body
    assert "Texts of another kind: under Evaluation, out of domain. Texts in another language: not measured." in body
    assert "Texts of another kind or language: not measured." in card()[1]


def test_without_an_assessment_nothing_is_claimed() -> None:
    _, body = card()
    for what in ("by length or by groups of texts", "between groups of people", "negation, emoji", "their calibration"):
        assert f"{what}: not measured." in body


def test_the_recipe_says_what_it_is_for() -> None:
    assert "intended use: not stated" in card()[1]
    section = {"intended_use": "Sorting.", "out_of_scope": "Hiring.", "limits": "Only films.", "language": "fr"}
    front, body = card(recipe=tiny.recipe(card=section))
    for said in ("intended use: Sorting.", "out of scope: Hiring.", "Only films. 99% of"):
        assert said in body
    assert front["language"] == "fr"


def packaged() -> object:
    return tiny.recipe(
        data={
            "source": "packaged",
            "name": "vader-movie-reviews",
            "thresholds": {"negative": {"at_most": -0.5}, "positive": {"at_least": 0.5}},
        }
    )


def test_packaged_reviews_come_with_a_warning_and_no_benchmark_figure() -> None:
    front, body = card(recipe=packaged())
    assert front["language"] == "en"
    assert "neither is a held-out test" in body
    assert "near neutral were left out" in body
    assert "SST-2" not in card()[1]


@pytest.mark.parametrize("heading", ["What it is for", "How to use it", "Limits and risks", "Provenance"])
def test_the_card_has_its_sections(heading: str) -> None:
    assert f"\n## {heading}\n" in card()[1]
