"""training/compare.py: who is better, by how much, and whether that is chance."""

import numpy as np
import pytest

from training.compare import check_labels, compare, discordance, in_order
from training.errors import EvaluationInvalid

NAMES = ("negative", "positive")


def scores_of(right: np.ndarray, labels: np.ndarray) -> np.ndarray:
    predicted = np.where(right, labels, 1 - labels)
    return np.stack([1 - (0.1 + 0.8 * predicted), 0.1 + 0.8 * predicted], axis=1)


def test_mcnemar_is_the_exact_binomial_test() -> None:
    first = np.array([True] * 9 + [False] * 1 + [True] * 5 + [False] * 5)
    second = np.array([False] * 9 + [True] * 1 + [True] * 5 + [False] * 5)
    found = discordance(first, second)
    assert (found.both_right, found.only_first_right, found.only_second_right, found.both_wrong) == (5, 9, 1, 5)
    assert found.p_value == pytest.approx(2 * (1 + 10) / 2**10)


def test_models_that_agree_are_not_told_apart() -> None:
    right = np.array([True, False, True])
    assert discordance(right, right).p_value == 1.0


def test_a_better_model_is_said_to_be_better_whatever_its_place() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 400)
    good, bad = (scores_of(rng.random(400) < skill, labels) for skill in (0.9, 0.7))
    found = compare(("good", "bad"), (good, bad), labels, NAMES)
    assert found.verdict == "good is more accurate on these rows"
    assert found.accuracy_difference.low > 0.1
    assert found.mcnemar.p_value < 1e-6
    turned = compare(("bad", "good"), (bad, good), labels, NAMES)
    assert turned.verdict == found.verdict
    assert turned.accuracy_difference.value == -found.accuracy_difference.value
    same = compare(("a", "b"), (good, good), labels, NAMES)
    assert "neither" in same.verdict
    assert same.label_agreement == 1.0


def test_columns_follow_the_labels() -> None:
    scores = np.array([[0.1, 0.2, 0.7]])
    assert in_order(scores, ["a", "b", "c"], ["c", "a", "b"]).tolist() == [[0.7, 0.1, 0.2]]
    with pytest.raises(EvaluationInvalid, match="its labels are a, b, c, not a, b"):
        check_labels(["a", "b", "c"], ["a", "b"])
    check_labels(["a", "b"], ["b", "a"])
