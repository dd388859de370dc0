"""What the model should say about each row, and the loss against it."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from training.prepare import Split
from training.recipe import Recipe


def soft_targets(split: Split, recipe: Recipe) -> npt.NDArray[np.float32]:
    """What the model should say about each row, shape (rows, labels), each row summing to its weight in the loss.

    Without `rating_sharpness` all weight lies on the label. With it, a row that people rated near the neutral band
    asks for less certainty than one they all agreed on. `label_smoothing` is applied on top. The weight is 1 unless
    the recipe has `class_weights`.
    """
    count = len(recipe.labels)
    section = recipe.training
    targets = np.eye(count)[split.labels]
    if section.rating_sharpness is not None and split.ratings is not None:
        second = 1 / (1 + np.exp(-section.rating_sharpness * _towards_last(split.ratings, recipe)))
        rated = np.isfinite(second)
        targets[rated] = np.stack([1 - second, second], axis=1)[rated]
    smoothed = targets * (1 - section.label_smoothing) + section.label_smoothing / count
    return np.asarray(smoothed * row_weights(split, recipe)[:, None], dtype=np.float32)


def row_weights(split: Split, recipe: Recipe) -> npt.NDArray[np.float64]:
    """The weight of each row in the loss, shape (rows,), 1 on average: by its label, or by its label and source.

    `balanced` gives every label the same share of the loss: rows / (labels x rows of the label). `balanced_by_source`
    does so within each joined source that has several labels, and leaves each source its own share: what kind of text
    a row is then says nothing about its label.
    """
    weights = recipe.training.class_weights
    if weights is None:
        return np.ones(len(split))
    if isinstance(weights, dict):
        wanted = np.array([weights[label] for label in recipe.labels])[split.labels]
        return np.asarray(wanted / wanted.mean())
    if weights == "balanced_by_source" and split.sources:
        return _balanced(split.labels, np.unique(split.sources, return_inverse=True)[1])
    return _balanced(split.labels, np.zeros_like(split.labels))


def _balanced(labels: npt.NDArray[np.int64], groups: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Weights of shape (rows,): within a group, every label that it has weighs the same."""
    rows = np.zeros((groups.max(initial=0) + 1, labels.max(initial=0) + 1))
    np.add.at(rows, (groups, labels), 1)
    present = np.count_nonzero(rows, axis=1)
    weights: npt.NDArray[np.float64] = rows.sum(axis=1)[groups] / (present[groups] * rows[groups, labels])
    return weights


def _towards_last(ratings: npt.NDArray[np.float64], recipe: Recipe) -> npt.NDArray[np.float64]:
    """Signed distance from the middle of the neutral band; positive on the last label's side."""
    first, last = (recipe.data.thresholds[label] for label in recipe.labels)
    middle = (first.high + last.low) / 2 if first.low < last.low else (last.high + first.low) / 2
    return (ratings - middle) * (1.0 if first.low < last.low else -1.0)


def soft_cross_entropy(
    outputs: Mapping[str, torch.Tensor], labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Cross-entropy in nats against targets of shape (rows, labels), in fp32; the mean over the optimizer's step.

    `num_items_in_batch` counts target cells over all forward passes of one step, so accumulation changes nothing.
    """
    losses = -(labels * torch.log_softmax(outputs["logits"].float(), dim=-1)).sum(dim=-1)
    if num_items_in_batch is None:
        return losses.mean()
    return losses.sum() * labels.shape[-1] / num_items_in_batch
