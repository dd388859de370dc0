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
    return np.asarray(smoothed * class_weights(split, recipe)[split.labels, None], dtype=np.float32)


def class_weights(split: Split, recipe: Recipe) -> npt.NDArray[np.float64]:
    """The weight of each label, shape (labels,), scaled so that the rows of `split` weigh 1 on average.

    `balanced` gives every label the same share of the loss: rows / (labels x rows of the label).
    """
    weights = recipe.training.class_weights
    rows = np.bincount(split.labels, minlength=len(recipe.labels))
    if weights is None:
        return np.ones(len(recipe.labels))
    wanted = 1 / np.maximum(rows, 1) if weights == "balanced" else np.array([weights[label] for label in recipe.labels])
    scaled: npt.NDArray[np.float64] = wanted * (rows.sum() / (wanted * rows).sum())
    return scaled


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
