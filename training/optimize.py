"""The optimizer of a recipe, and which parameters it moves at which rate."""

import re
from typing import Any, Final

import torch
import transformers

from training.errors import RecipeInvalid
from training.recipe import TrainingSection

_SGD_MOMENTUM: Final = 0.9


def parameter_groups(model: transformers.PreTrainedModel, section: TrainingSection) -> list[dict[str, Any]]:
    """The optimizer's groups: the head at the full rate, each layer below it at `layer_decay` times the one above.

    Layer-wise decay as in Howard & Ruder 2018 and Sun et al. 2019; biases and norms get no weight decay.
    """
    depths = {name: _depth(name) for name, _ in model.named_parameters()}
    layers = 1 + max((depth for depth in depths.values() if depth is not None), default=-1)
    groups: dict[tuple[int, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        depth = depths[name]
        below = 0 if _in_head(name, model) else layers - (-1 if depth is None else depth)
        groups.setdefault((below, parameter.ndim < 2), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": section.learning_rate * section.layer_decay**below,
            "weight_decay": 0.0 if plain else section.weight_decay,
        }
        for (below, plain), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def optimizer_of(model: transformers.PreTrainedModel, section: TrainingSection) -> torch.optim.Optimizer:
    """The recipe's optimizer over the parameters that are trained."""
    groups = parameter_groups(model, section)
    if section.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=section.learning_rate, momentum=_SGD_MOMENTUM, nesterov=True)
    if section.optimizer == "nadam":
        return torch.optim.NAdam(groups, lr=section.learning_rate, decoupled_weight_decay=True)
    if section.optimizer == "adafactor":
        return torch.optim.Adafactor(groups, lr=section.learning_rate)
    return torch.optim.AdamW(groups, fused=True)


def freeze(model: transformers.PreTrainedModel, layers: int, *, embeddings: bool = True) -> None:
    """Leave the lowest `layers` layers as they are, and the `embeddings` with them; with 0 everything is trained.

    Raises RecipeInvalid when the encoder has fewer.
    """
    if not layers:
        return
    depths = {name: _depth(name) for name, _ in model.named_parameters()}
    count = 1 + max((depth for depth in depths.values() if depth is not None), default=-1)
    if layers > count:
        raise RecipeInvalid(f"training.frozen_layers: {layers}, but the encoder has {count} layers")
    for name, parameter in model.named_parameters():
        depth = depths[name]
        if not _in_head(name, model) and (embeddings if depth is None else depth < layers):
            parameter.requires_grad = False


def _depth(name: str) -> int | None:
    """The layer number in a parameter's name: `bert.encoder.layer.3.output...` is 3."""
    found = re.search(r"\.(?:layer|layers|h|block|blocks)\.(\d+)\.", name)
    return int(found.group(1)) if found else None


def _in_head(name: str, model: transformers.PreTrainedModel) -> bool:
    """Whether a parameter lies above the encoder's layers: the classifier and the pooler."""
    return ".pooler." in name or not name.startswith(f"{model.base_model_prefix}.")
