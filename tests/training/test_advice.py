"""training/advice.py: each finding is told with what training does, and what the recipe says changes that."""

from dataclasses import replace

import pytest

from tests.training import tiny
from training.advice import Advice, advise
from training.explore import Doubts, Drift, Exploration, HeldOut, Outcome, Sample
from training.signals import Apart, Telling
from training.survey import Lengths, Survey

SURVEY = Survey(
    labels={"negative": 50, "positive": 50},
    unlabelled=0,
    lengths=Lengths("tiny", {"p50": 9}, [], 128, 0),
    flaws={},
    first_flaws={},
    personal={},
    personal_rows=0,
    scripts={"Latin": 100},
)
OUTCOME = Outcome({"read": 100, "kept": 100}, "", 0.5, {}, {}, 0, 0, [], "a key")
SAMPLE = Sample(100, {}, {}, {"en": 1.0}, Doubts(0, 0.9, []))
CLEAN = Exploration("data", "MIT", "a test", 100, {}, (), SURVEY, OUTCOME, SAMPLE, (), None)


def advice(found: Exploration, topic: str, **changes: object) -> list[Advice]:
    return [each for each in advise(found, tiny.recipe(**changes)) if each.topic == topic]


def survey(**changes: object) -> Exploration:
    return replace(CLEAN, survey=replace(SURVEY, **changes))  # type: ignore[arg-type]


def outcome(**changes: object) -> Exploration:
    return replace(CLEAN, outcome=replace(OUTCOME, **changes))  # type: ignore[arg-type]


def test_data_without_a_fault_is_fine_throughout() -> None:
    assert {each.level for each in advise(CLEAN, tiny.recipe())} == {"good"}


def test_a_refusal_stops() -> None:
    (found,) = advice(outcome(refusal="only 10 of 10 rows are usable"), "Rows")
    assert (found.level, found.found) == ("stop", "Training cannot start: only 10 of 10 rows are usable.")


@pytest.mark.parametrize(
    ("changes", "does"),
    [
        ({}, "Nothing by itself"),
        ({"training__class_weights": "balanced"}, "Weighs or samples"),
        ({"prepare__balanced": True}, "Weighs or samples"),
    ],
)
def test_rare_labels(changes: dict[str, object], does: str) -> None:
    (found,) = advice(survey(labels={"negative": 90, "positive": 10}), "Labels", **changes)
    assert found.level == "warn"
    assert "9.0 times" in found.found
    assert found.training.startswith(does)


@pytest.mark.parametrize(
    ("flaw", "steps", "does"),
    [
        ("empty", [], "Leaves them out."),
        ("mojibake", ["unicode"], "Takes them as they are: mend"),
        ("html", [], "Takes them as they are; prepare.transforms = [“html”]"),
        ("html", ["html"], "Cleans them"),
        ("url", ["html"], "Takes them as they are; prepare.transforms = [“urls”]"),
    ],
)
def test_flaws_are_told_with_what_mends_them(flaw: str, steps: list[str], does: str) -> None:
    (found,) = advice(survey(flaws={flaw: 3}, first_flaws={flaw: "row 7"}), "Broken texts", prepare__transforms=steps)
    assert found.found.startswith("3 of 100 rows (3.0%) ")
    assert found.found.endswith("the first is row 7.")
    assert found.training.startswith(does)


@pytest.mark.parametrize(("steps", "does"), [([], "Takes them"), (["pii"], "Masks them")])
def test_personal_data(steps: list[str], does: str) -> None:
    (found,) = advice(survey(personal={"email": 4}, personal_rows=3), "Personal data", prepare__transforms=steps)
    assert found.found == "3 of 100 rows (3.0%) hold personal data: 4 email."
    assert found.training.startswith(does)


def test_duplicates_and_leakage() -> None:
    found = outcome(
        counts={"conflicting": 2, "exact_duplicates": 3, "near_duplicates": 4}, across_splits=1, other_label=1
    )
    assert [each.level for each in advice(found, "Duplicates")] == ["warn", "note"]
    assert [each.level for each in advice(found, "Leakage between splits")] == ["warn", "warn"]


def test_lengths_and_scripts() -> None:
    long = replace(SURVEY.lengths, over_limit=2)
    (length,) = advice(survey(lengths=long), "Length")
    assert (length.level, "2 of 100 rows (2.0%)" in length.found) == ("warn", True)
    (length,) = advice(survey(lengths=long), "Length", training__window_tokens=16)
    assert (length.level, "in windows" in length.training) == ("note", True)
    (script,) = advice(survey(scripts={"Latin": 99, "Han": 1}), "Language")
    assert (script.level, "are in Han" in script.found) == ("note", True)


def test_a_second_language_in_the_same_script() -> None:
    found = replace(CLEAN, sample=replace(SAMPLE, languages={"de": 0.3, "en": 0.65, "fr": 0.05}))
    script, language = advice(found, "Language")
    assert script.level == "good"
    assert (language.level, "65% of the texts are en, 30% de (ISO" in language.found) == ("warn", True)


def test_words_and_labels() -> None:
    sample = replace(SAMPLE, giveaways={"positive": (Telling("zeppelin", 0.0, 30, 0),)}, doubts=None)
    found = replace(CLEAN, sample=sample)
    assert advice(found, "Words")[0].level == "warn"
    assert advice(found, "Doubtful labels")[0].found == "Not looked for: a label has too few rows."


def test_held_out_rows_stop() -> None:
    inside, outside = HeldOut("a.csv", 10, 1, 0), HeldOut("b.csv", 10, 0, 0)
    found = advice(replace(CLEAN, held_out=(inside, outside)), "Held-out file")
    assert [each.level for each in found] == ["stop", "good"]


@pytest.mark.parametrize(("auc", "level"), [(0.5, "good"), (0.65, "note"), (0.9, "warn"), (None, "note")])
def test_drift(auc: float | None, level: str) -> None:
    drift = Drift("b.csv", 10, Apart(auc, 0.0, 0.0, (), ()), None)
    assert [each.level for each in advice(replace(CLEAN, drift=drift), "Drift")] == [level]


def test_a_share_that_rounds_to_nothing_is_not_nothing() -> None:
    found = replace(survey(unlabelled=1), rows=10_000)
    assert "(less than 0.1%)" in advice(found, "Labels")[0].found
