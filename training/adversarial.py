"""Adversarial training: learn each batch a second time, from embeddings moved to where the loss rises fastest.

After Miyato, Dai and Goodfellow 2017, arXiv:1605.07725, who move every occurrence of a word for itself. Here the table
moves, once per batch: the same distance is shared by all its words, and any model with input embeddings will do.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import transformers

from training.errors import RecipeInvalid
from training.recipe import TrainingSection


def check_adversarial(model: transformers.PreTrainedModel, section: TrainingSection) -> None:
    """Raises RecipeInvalid where nothing can be moved: the table of embeddings is not trained."""
    if section.adversarial is not None and not _table(model).requires_grad:
        raise RecipeInvalid(
            "training.adversarial: needs embeddings that are trained; training.frozen_layers leaves none"
        )


@contextmanager
def moved_embeddings(model: transformers.PreTrainedModel, distance: float) -> Iterator[bool]:
    """The table moved by `distance` (L2, over the whole table) along its gradient, and put back after.

    False, and nothing moved, where there is no gradient to follow: it is zero or not finite.
    """
    table = _table(model)
    slope = torch.zeros(1) if table.grad is None else table.grad
    norm = slope.norm().item()
    if not 0 < norm < float("inf"):
        yield False
        return
    before = table.detach().clone()
    with torch.no_grad():
        table.add_(slope, alpha=distance / norm)
    try:
        yield True
    finally:
        with torch.no_grad():
            table.copy_(before)


def _table(model: transformers.PreTrainedModel) -> torch.nn.Parameter:
    weight: torch.nn.Parameter = model.get_input_embeddings().weight
    return weight
