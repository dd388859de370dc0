"""Adversarial training: learn each batch a second time, from embeddings moved to where the loss rises fastest.

After Miyato, Dai and Goodfellow 2017, arXiv:1605.07725, who move every occurrence of a word for itself. Here the table
moves, once per batch: the same distance is shared by all its words, and any model with input embeddings will do.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import transformers


@contextmanager
def moved_embeddings(
    model: transformers.PreTrainedModel, distance: float, before: torch.Tensor | None = None
) -> Iterator[bool]:
    """The table moved by `distance` (L2, over the whole table) along its gradient, and put back after.

    `before` is the gradient that was there already, of other batches of the same step. False, and nothing moved, where
    there is no gradient to follow: it is zero or not finite.
    """
    table = embeddings(model)
    slope = _slope(table, before)
    norm = slope.norm().item()
    if not 0 < norm < float("inf"):
        yield False
        return
    kept = table.detach().clone()
    with torch.no_grad():
        table.add_(slope, alpha=distance / norm)
    try:
        yield True
    finally:
        with torch.no_grad():
            table.copy_(kept)


def embeddings(model: transformers.PreTrainedModel) -> torch.nn.Parameter:
    """The table of shape (words, width) that tokens are looked up in."""
    weight: torch.nn.Parameter = model.get_input_embeddings().weight
    return weight


def _slope(table: torch.nn.Parameter, before: torch.Tensor | None) -> torch.Tensor:
    if table.grad is None:
        return torch.zeros(1)
    return table.grad if before is None else table.grad - before
