"""training/assess.py: one served model asked everything, with a tiny model whose answers are known."""

import numpy as np
import pytest
from rich.progress import Progress

from inference.model import Model
from tests.tiny_artifact import LABELS
from training.assess import Answers, Questions, Rows, answer, assess, calibration, slices_of, worst_sentence
from training.bias import Group, Probes
from training.errors import DataInvalid, EvaluationInvalid
from training.evaluate import evaluate, softmax
from training.slices import LENGTH

GOOD, BAD = "the film was good and funny", "an awful and boring mess"
PROBES = Probes(templates=("it was {term} .",), groups=(Group(name="words", terms=("good", "awful", "the")),))
QUIET = Questions(probes=PROBES, perturbed_rows=0)


def rows(count: int = 80) -> Rows:
    """Half good, half bad; the last ten are labelled the wrong way round, and all of those are from one source."""
    texts = tuple(f"{GOOD if row % 2 else BAD} {'it ' * (row % 5)}".strip() for row in range(count))
    labels = np.arange(count) % 2
    labels[-10:] = 1 - labels[-10:]
    sources = ["web" if row >= count - 40 else "book" for row in range(count)]
    return Rows("made rows", texts, labels, {"source": sources, "number": list(range(count))})


def test_answers_are_those_of_the_service_in_order(model: Model, progress: Progress) -> None:
    texts = [GOOD, BAD] * 300
    found = answer(model, texts, progress)
    assert found.scores.shape == (600, 2)
    assert found.scores.argmax(axis=1).tolist() == [1, 0] * 300
    assert found.tokens[:2] == model.predict([GOOD, BAD]).input_tokens
    assert answer(model, ["film " * 500], progress).tokens == (model.task.max_input_tokens,)


def test_a_text_the_model_refuses_is_named_by_its_place(model: Model, progress: Progress) -> None:
    with pytest.raises(DataInvalid, match="Predicting, text 301: must not be empty"):
        answer(model, [GOOD] * 300 + [" "], progress)


def test_every_part_is_measured(model: Model, progress: Progress) -> None:
    questions = Questions(groups=("number",), conditions=("score > 0.5",), probes=PROBES, perturbed_rows=40)
    found = assess(model, rows(), questions, progress, temperature=2.0).assessment
    assert (found.variant, found.data, found.rows) == ("fp32", "made rows", 80)
    assert found.metrics["accuracy"].value == pytest.approx(70 / 80)
    assert [each.by for each in found.slices if each.by in ("source", "expression")] == ["source"] * 2 + ["expression"]
    assert any(each.by == "number" for each in found.slices)
    assert found.worst_slice is not None
    assert (found.worst_slice.by, found.worst_slice.name) == ("source", "web")
    assert found.worst_slice.accuracy.value == pytest.approx(30 / 40)
    [bias] = found.bias
    assert (bias.worst.terms, bias.label_flips >= 1) == (("good", "awful"), True)
    assert {each.name for each in found.robustness} >= {"typos", "upper case", "emoji"}
    assert "source: web" in worst_sentence(found)


def test_the_same_seed_finds_the_same(model: Model, progress: Progress) -> None:
    questions = Questions(probes=PROBES, perturbed_rows=20, seed=3)
    first, second = (assess(model, rows(), questions, progress).assessment for _ in range(2))
    assert first == second


def test_slices_without_a_source_are_by_length_alone(model: Model, progress: Progress) -> None:
    plain = Rows("plain", rows().texts, rows().labels)
    found = assess(model, plain, QUIET, progress).assessment
    assert {each.by for each in found.slices} == {LENGTH}
    assert found.robustness == ()
    assert sum(each.rows for each in found.slices) == 80


def test_an_unknown_column_is_said_before_anything_is_predicted(model: Model, progress: Progress) -> None:
    with pytest.raises(EvaluationInvalid, match="--group genre: no such column in made rows; there are number, source"):
        assess(model, rows(), Questions(groups=("genre",)), progress)
    bare = Rows("plain", rows().texts, rows().labels)
    with pytest.raises(EvaluationInvalid, match="there are no columns beside text and label"):
        assess(model, bare, Questions(groups=("genre",)), progress)


@pytest.mark.parametrize(
    ("condition", "count"),
    [
        ("predicted == 'positive'", 2),
        ("label == 'negative' and predicted == 'positive'", 1),
        ("words >= 3 and characters > 9", 1),
        ("'c d' in text", 1),
        ("tokens == 9", 2),
        ("score >= 0.7", 2),
        ("source == 'x'", 1),
    ],
)
def test_a_condition_may_name_what_is_known_of_a_row(condition: str, count: int) -> None:
    some = Rows("some", ("a", "b c d e f g", "h"), np.array([0, 0, 1]), {"source": ["x", "y", "y"]})
    answers = Answers(np.array([[0.9, 0.1], [0.3, 0.7], [0.4, 0.6]]), (9, 4, 9))
    found = slices_of(some, answers, LABELS, Questions(conditions=(condition,)))
    assert int(found[-1].rows.sum()) == count


def test_the_temperature_is_taken_out_again() -> None:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, 400)
    logits = rng.normal(size=(400, 2)) + np.eye(2)[labels]
    plain, served = softmax(logits), softmax(logits / 3.0)
    found = calibration(served, labels, LABELS, evaluate(served, labels, LABELS), 3.0)
    expected = evaluate(plain, labels, LABELS).metrics
    assert found.before["log_loss"].value == pytest.approx(expected["log_loss"].value)
    assert found.after["log_loss"].value > found.before["log_loss"].value
    # Logits made like these are calibrated as they are: the rows ask for what was done to them to be undone.
    assert found.best_temperature == pytest.approx(1 / 3, rel=0.25)
    nobody = calibration(served, labels, LABELS, evaluate(served, labels, LABELS), None)
    assert (nobody.temperature, nobody.before) == (None, {})
