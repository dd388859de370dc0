"""training/data_card.py: facts that were counted, and plain words where nobody counted or said anything."""

from dataclasses import replace

import numpy as np

from artifact.manifest import Estimate, Explored, SliceResult
from tests.training import tiny
from tests.training.findings import assessment, explored_findings, findings
from training.data_card import render_data_card
from training.prepare import Split
from training.recipe import CardSection


def test_facts_are_those_of_preparation() -> None:
    card = render_data_card(findings())
    assert "6 labelled texts, divided into 2 to train, 2 to validate and 2 to test" in card
    assert "`sha256:abc`" in card
    assert "| read | 12,345 |" in card
    assert "| train | 2 | 1 (50.0%) | 1 (50.0%) |" in card
    assert "50% up to 9, 90% up to 40, 99% up to 40, longest 40" in card
    assert "in 50% of cases" in card
    assert "licence: MIT" in card


def test_what_nobody_measured_or_said_reads_so() -> None:
    card = render_data_card(findings(lengths=[]))
    assert "Whether the labels are right: not measured." in card
    assert "Tokens per text: not measured." in card
    assert "intended use: not stated" in card
    assert "Language: not stated" in card
    assert card.endswith("## Contact\n\nnot stated\n")


def test_the_recipe_has_its_say() -> None:
    section = CardSection(
        intended_use="Sorting.", collection="By hand.", data_licence="CC0", language="de-AT", contact="us@example.org"
    )
    found = findings(recipe=tiny.recipe(card=section.model_dump()))
    card = render_data_card(replace(found, prepared=replace(found.prepared, licence="unknown")))
    for said in ("intended use: Sorting.", "By hand.", "licence: CC0", "`de-AT`", "us@example.org"):
        assert said in card
    assert "licence: MIT" in render_data_card(found)


def test_labels_are_explained() -> None:
    bands = {"negative": {"at_most": -0.5}, "positive": {"at_least": 0.5, "at_most": 4}}
    assert "`negative` up to -0.5; `positive` from 0.5 to 4" in render_data_card(
        findings(recipe=tiny.recipe(data__thresholds=bands))
    )
    names = {"0": "negative", "1": "positive"}
    assert "0 is `negative`, 1 is `positive`" in render_data_card(findings(recipe=tiny.recipe(data__label_names=names)))
    assert "Labels stand in the data as they are." in render_data_card(findings())


def test_sources_that_differ_are_explained_in_turn() -> None:
    sources = [
        {"source": "file", "path": "a.csv", "label_names": {"0": "negative"}},
        {"source": "file", "path": "b.csv"},
        {"source": "file", "path": "c.csv"},
    ]
    card = render_data_card(findings(recipe=tiny.recipe(data={"source": "joined", "sources": sources})))
    assert "0 is `negative`. Labels stand in the data as they are. Whether" in card


def test_cleaning_and_masking_are_told() -> None:
    found = findings(recipe=tiny.recipe(prepare={"transforms": ["html", "pii"]}))
    card = render_data_card(replace(found, prepared=replace(found.prepared, masked={"email": 1_204})))
    assert "white space folded; then html, pii; masked: 1,204 email)" in card
    assert "Personal data masked in the texts: 1,204 email. Names, and whose texts they are: not measured." in card


def test_personal_data_that_is_left_is_counted() -> None:
    left = "Personal data left in the texts as it is, where it has a form: "
    assert f"{left}2 email, 1 phone. Names" in render_data_card(findings(personal={"phone": 1, "email": 2}))
    assert f"{left}none found." in render_data_card(findings())


def test_what_exploring_found_is_told_or_not_measured() -> None:
    assert "broken texts: not measured." in render_data_card(findings())
    fine, both = (Explored(topic=topic, level="good", found="None.") for topic in ("Words", "Held-out file"))
    odd = Explored(topic="Held-out file", level="stop", found="3 rows of a|b.csv are in the data.")
    told = "By `slipway explore`; nothing odd about: words."
    card = render_data_card(explored_findings(fine, both, odd))
    assert f"{told}\n\n| about | found |\n|---|---|\n| Held-out file | 3 rows of a\\|b.csv are in the data. |\n" in card
    assert f"{told}\n\n## People" in render_data_card(explored_findings(fine))


def test_what_was_measured_on_and_never_learned_is_named() -> None:
    elsewhere = (SliceResult(by="elsewhere", name="Tweets", rows=4, accuracy=Estimate(value=0.5, low=0.2, high=0.8)),)
    changed = assessment().model_copy(update={"elsewhere": elsewhere})
    card = render_data_card(findings(manifest=findings().manifest.model_copy(update={"assessment": changed})))
    assert "- measured on, never learned: Tweets (4 rows)" in card
    assert "never learned" not in render_data_card(findings())


def test_an_empty_split_divides_by_nothing() -> None:
    empty = Split((), np.array([], dtype=np.int64), None)
    found = findings()
    card = render_data_card(replace(found, prepared=replace(found.prepared, test=empty)))
    assert "| test | 0 | 0 (0.0%) | 0 (0.0%) |" in card


def test_packaged_data_is_said_to_overlap() -> None:
    recipe = tiny.recipe(
        data={
            "source": "packaged",
            "name": "vader-movie-reviews",
            "thresholds": {"negative": {"at_most": -0.5}, "positive": {"at_least": 0.5}},
        }
    )
    assert "neither is a held-out test" in render_data_card(findings(recipe=recipe))
