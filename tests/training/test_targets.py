"""training/targets.py: targets from labels, ratings and weights, and the loss against them."""

import numpy as np
import pytest
import torch

from tests.training import tiny
from training.prepare import Split
from training.targets import soft_cross_entropy, soft_targets

RATED = Split(("a", "b", "c"), np.array([0, 1, 1]), np.array([-2.0, 0.5, 4.0]))
THRESHOLDS = {"negative": {"at_most": -0.5}, "positive": {"at_least": 0.5}}


def test_targets_follow_the_ratings() -> None:
    recipe = tiny.recipe(data__thresholds=THRESHOLDS, training__rating_sharpness=1.0)
    targets = soft_targets(RATED, recipe)
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(targets[:, 1], 1 / (1 + np.exp([2.0, -0.5, -4.0])), atol=1e-6)


def test_a_row_that_nobody_rated_keeps_its_label() -> None:
    recipe = tiny.recipe(data__thresholds=THRESHOLDS, training__rating_sharpness=1.0)
    split = Split(("a", "b"), np.array([0, 1]), np.array([np.nan, 0.5]))
    np.testing.assert_allclose(soft_targets(split, recipe)[:, 1], [0, 1 / (1 + np.exp(-0.5))], atol=1e-6)


def test_targets_follow_a_scale_that_is_neither_centred_nor_upward() -> None:
    stars = {"negative": {"at_least": 4}, "positive": {"at_most": 2}}
    recipe = tiny.recipe(data__thresholds=stars, training__rating_sharpness=1.0)
    rated = Split(("a", "b"), np.array([0, 1]), np.array([5.0, 2.0]))
    np.testing.assert_allclose(soft_targets(rated, recipe)[:, 1], 1 / (1 + np.exp([2.0, -1.0])), atol=1e-6)


def test_label_smoothing_spreads_part_of_each_target() -> None:
    targets = soft_targets(RATED, tiny.recipe(training__label_smoothing=0.2))
    np.testing.assert_allclose(targets, [[0.9, 0.1], [0.1, 0.9], [0.1, 0.9]], atol=1e-6)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [(None, [1, 1, 1]), ("balanced", [1.5, 0.75, 0.75]), ({"negative": 4, "positive": 1}, [2, 0.5, 0.5])],
)
def test_rows_weigh_what_their_label_does_and_one_on_average(weights: object, expected: list[float]) -> None:
    targets = soft_targets(RATED, tiny.recipe(training__class_weights=weights))
    np.testing.assert_allclose(targets.sum(axis=1), expected, atol=1e-6)
    np.testing.assert_allclose(targets.argmax(axis=1), RATED.labels)


def test_labels_weigh_the_same_within_each_source_that_has_both() -> None:
    labels = np.array([0, 0, 0, 1, 0, 1, 1, 1])
    sources = ("tweets",) * 4 + ("films",) * 2 + ("ads",) * 2
    split = Split(tuple("abcdefgh"), labels, None, sources)
    weights = soft_targets(split, tiny.recipe(training__class_weights="balanced_by_source")).sum(axis=1)
    np.testing.assert_allclose(weights, [2 / 3, 2 / 3, 2 / 3, 2, 1, 1, 1, 1], atol=1e-6)


def test_without_sources_balanced_by_source_is_balanced() -> None:
    by_source = soft_targets(RATED, tiny.recipe(training__class_weights="balanced_by_source"))
    np.testing.assert_array_equal(by_source, soft_targets(RATED, tiny.recipe(training__class_weights="balanced")))


def test_the_loss_is_cross_entropy() -> None:
    logits = torch.tensor([[2.0, -1.0], [0.5, 0.25]])
    hard = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1]))
    assert soft_cross_entropy({"logits": logits}, hard) == pytest.approx(expected.item())
    assert soft_cross_entropy({"logits": logits}, hard, 8) == pytest.approx(expected.item() / 2)
