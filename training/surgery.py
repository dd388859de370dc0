"""Cutting a fine-tuned classifier of BERT's family smaller: layers, heads, neurons, ranks, weights.

Every cut changes a model in place and leaves its inputs and outputs as they were. A cut model's shapes are no longer
those its configuration tells, so it is saved with a marker, and loading takes the shapes from the weights themselves.

    <folder>/config.json, tokenizer files, model.safetensors    the hub's layout
    <folder>/cut.json                                           the marker: which steps made it
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from training.errors import TrainingError

Batch = Mapping[str, torch.Tensor]

MARKER: Final = "cut.json"
# In a cut model's configuration: heads left in each layer. `num_attention_heads` still tells how wide one is.
KEPT_HEADS: Final = "slipway_kept_heads"
_WEIGHTS: Final = "model.safetensors"
_LAYER: Final = re.compile(r"(?:^|\.)layer\.\d+$")
_QUERY, _KEY, _VALUE = (f"attention.self.{name}" for name in ("query", "key", "value"))
_JOINED: Final = "attention.output.dense"
_UP: Final = "intermediate.dense"
_DOWN: Final = "output.dense"
# Keeps the second moment of activations that never vary invertible; relative to its mean diagonal.
_RIDGE: Final = 1e-4


def layer_names(model: nn.Module) -> list[str]:
    """Names of the transformer layers, bottom first. Raises TrainingError for a model built otherwise than BERT."""
    found = [name for name, _ in model.named_modules() if _LAYER.search(name)]
    known = [name for name in found if all(_has(model, f"{name}.{part}") for part in (_QUERY, _JOINED, _UP, _DOWN))]
    if not known or len(known) != len(found):
        raise TrainingError(f"a {type(model).__name__} cannot be cut: its layers are not built like BERT's")
    return known


def keep_layers(model: transformers.PreTrainedModel, count: int) -> None:
    """Leave `count` layers, evenly spaced from the first to the last. Raises TrainingError when it has no more."""
    names = layer_names(model)
    if not 0 < count < len(names):
        raise TrainingError(f"cannot keep {count} of {len(names)} layers")
    parent = names[0].rpartition(".")[0]
    kept = np.linspace(0, len(names) - 1, count).round().astype(int) if count > 1 else [0]
    model.set_submodule(parent, nn.ModuleList(model.get_submodule(names[place]) for place in kept))
    model.config.num_hidden_layers = count


def remove_heads(model: transformers.PreTrainedModel, share: float, batches: Sequence[Batch]) -> None:
    """Remove that share of the attention heads of every layer, those that matter least to the loss on `batches`.

    Importance is E|context . gradient| per head: Michel et al. 2019, arXiv:1905.10650.
    """
    width = head_size(model)
    scores = _importance(model, _JOINED, batches)
    for name in layer_names(model):
        heads = scores[name].reshape(-1, width).sum(dim=1)
        kept = _most_important(heads, share)
        columns = (kept[:, None] * width + torch.arange(width)).flatten()
        for part in (_QUERY, _KEY, _VALUE):
            _keep_outputs(model, f"{name}.{part}", columns)
        _keep_inputs(model, f"{name}.{_JOINED}", columns)
        setattr(model.config, KEPT_HEADS, len(kept))


def remove_neurons(model: transformers.PreTrainedModel, share: float, batches: Sequence[Batch]) -> None:
    """Remove that share of the feed-forward neurons of every layer, by |activation . gradient| on `batches`.

    The first-order Taylor criterion: Molchanov et al. 2017, arXiv:1611.06440.
    """
    scores = _importance(model, _DOWN, batches)
    for name in layer_names(model):
        kept = _most_important(scores[name], share)
        _keep_outputs(model, f"{name}.{_UP}", kept)
        _keep_inputs(model, f"{name}.{_DOWN}", kept)


def factorise(model: transformers.PreTrainedModel, share: float, batches: Sequence[Batch]) -> None:
    """Replace each feed-forward matrix by two of low rank that hold `share` of its numbers together.

    The singular vectors are those of the matrix weighted by the second moment of what flows into it, so that the
    error of the outputs on `batches` is least, not that of the weights: Wang et al. 2024, arXiv:2403.07378.
    Attention is left alone: onnxruntime fuses it only whole.
    """
    parts = [f"{name}.{part}" for name in layer_names(model) for part in (_UP, _DOWN)]
    moments = _second_moments(model, parts, batches)
    for name in parts:
        linear = _linear(model, name)
        rank = max(1, int(share * linear.weight.numel() / sum(linear.weight.shape)))
        model.set_submodule(name, low_rank(linear, moments[name], rank))


def low_rank(linear: nn.Linear, moment: torch.Tensor, rank: int) -> nn.Sequential:
    """Two linear layers of that rank in place of one. `moment`: E[x x'] of its inputs, (inputs, inputs)."""
    ridge = _RIDGE * moment.diagonal().mean() + torch.finfo(torch.float64).tiny
    root = torch.linalg.cholesky(moment.double() + ridge * torch.eye(len(moment), dtype=torch.float64))
    left, values, right = torch.linalg.svd(linear.weight.detach().double() @ root, full_matrices=False)
    spread = values[:rank].sqrt()
    first = nn.Linear(linear.in_features, rank, bias=False)
    second = nn.Linear(rank, linear.out_features)
    with torch.no_grad():
        unrooted = torch.linalg.solve_triangular(root, right[:rank], upper=False, left=False)
        first.weight.copy_(spread[:, None] * unrooted)
        second.weight.copy_(left[:, :rank] * spread)
        second.bias.copy_(linear.bias)
    return nn.Sequential(first, second)


def zero_weights(model: transformers.PreTrainedModel, share: float) -> None:
    """Set that share of the weights of every matrix in the layers to zero: those of the smallest magnitude."""
    with torch.no_grad():
        for linear in _linears(model):
            count = int(share * linear.weight.numel())
            if count:
                limit = linear.weight.abs().flatten().kthvalue(count).values
                linear.weight.masked_fill_(linear.weight.abs() <= limit, 0.0)


def clip_weights(model: transformers.PreTrainedModel, quantile: float) -> None:
    """Clip the weights towards each output at that quantile of their magnitude: outliers no longer set the scale."""
    with torch.no_grad():
        for linear in _linears(model):
            limit = linear.weight.abs().quantile(quantile, dim=1, keepdim=True)
            linear.weight.copy_(linear.weight.clamp(-limit, limit))


def head_size(model: transformers.PreTrainedModel) -> int:
    """Width of one attention head."""
    size: int = model.config.hidden_size // model.config.num_attention_heads
    return size


def save_cut(model: transformers.PreTrainedModel, tokenizer: Any, folder: Path, steps: str) -> None:
    """Write model and tokenizer into `folder`, which must not exist; the marker comes last."""
    folder.mkdir(parents=True)
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in _state(model)}, folder / _WEIGHTS)
    (folder / MARKER).write_text(json.dumps({"steps": steps}), encoding="utf-8")


def is_cut(folder: Path) -> bool:
    """Whether `folder` holds a model that `save_cut` wrote, and wrote to the end."""
    return (folder / MARKER).is_file()


def load_cut(folder: Path, attention: str | None = "eager") -> transformers.PreTrainedModel:
    """The model saved there, fp32, in evaluation mode."""
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    # Straight to fp32: the model was trained and cut in it.
    model = transformers.AutoModelForSequenceClassification.from_config(config, attn_implementation=attention).float()
    state = load_file(folder / _WEIGHTS)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear):
            model.set_submodule(name, _shaped(module, name, state))
    model.load_state_dict(state)
    return model.eval()


def _shaped(linear: nn.Linear, name: str, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """An empty layer of the shape that the weights have: one matrix, or two where it was factorised."""
    if f"{name}.weight" in state:
        outputs, inputs = state[f"{name}.weight"].shape
        return linear if linear.weight.shape == (outputs, inputs) else nn.Linear(inputs, outputs)
    (rank, inputs), (outputs, _) = state[f"{name}.0.weight"].shape, state[f"{name}.1.weight"].shape
    return nn.Sequential(nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs))


def _state(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.state_dict().items()


def _has(model: nn.Module, name: str) -> bool:
    try:
        model.get_submodule(name)
    except AttributeError:
        return False
    return True


def _linear(model: nn.Module, name: str) -> nn.Linear:
    found = model.get_submodule(name)
    if not isinstance(found, nn.Linear):
        raise TrainingError(f"{name} was factorised before; cut it first and factorise last")
    return found


def _linears(model: transformers.PreTrainedModel) -> list[nn.Linear]:
    """Every matrix of the layers."""
    prefixes = tuple(f"{name}." for name in layer_names(model))
    return [m for name, m in model.named_modules() if isinstance(m, nn.Linear) and name.startswith(prefixes)]


def _most_important(scores: torch.Tensor, share: float) -> torch.Tensor:
    """Places of those to keep, in order; at least one."""
    keep = max(1, len(scores) - round(share * len(scores)))
    return scores.topk(keep).indices.sort().values


def _keep_outputs(model: nn.Module, name: str, places: torch.Tensor) -> None:
    linear = _linear(model, name)
    _replace(model, name, linear.weight[places], linear.bias[places])


def _keep_inputs(model: nn.Module, name: str, places: torch.Tensor) -> None:
    linear = _linear(model, name)
    _replace(model, name, linear.weight[:, places], linear.bias)


def _replace(model: nn.Module, name: str, weight: torch.Tensor, bias: torch.Tensor) -> None:
    smaller = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        smaller.weight.copy_(weight)
        smaller.bias.copy_(bias)
    model.set_submodule(name, smaller)


def _importance(model: transformers.PreTrainedModel, part: str, batches: Sequence[Batch]) -> dict[str, torch.Tensor]:
    """Per layer: |sum over tokens of input . gradient| of `part`'s inputs, summed over rows. Shape (inputs,)."""
    names = layer_names(model)
    sums = {name: torch.zeros(_linear(model, f"{name}.{part}").in_features) for name in names}
    for batch in batches:
        seen: dict[str, torch.Tensor] = {}
        with _inputs_of(model, [f"{name}.{part}" for name in names], _keeper(seen)):
            logits = model(**_without_targets(batch)).logits
        loss = -(batch["labels"] * torch.log_softmax(logits, dim=-1)).sum()
        found = [seen[f"{name}.{part}"] for name in names]
        for name, values, slopes in zip(names, found, torch.autograd.grad(loss, found), strict=True):
            sums[name] += (values * slopes).sum(dim=1).abs().sum(dim=0).detach()
    return sums


def _keeper(seen: dict[str, torch.Tensor]) -> Callable[[str, torch.Tensor], None]:
    def keep(name: str, values: torch.Tensor) -> None:
        seen[name] = values

    return keep


def _second_moments(
    model: transformers.PreTrainedModel, parts: Sequence[str], batches: Sequence[Batch]
) -> dict[str, torch.Tensor]:
    """E[x x'] of the inputs of each part over real tokens, float64."""
    sums: dict[str, torch.Tensor] = {}
    tokens = 0
    for batch in batches:
        real = batch["attention_mask"].bool()
        tokens += int(real.sum())

        def add(name: str, values: torch.Tensor, real: torch.Tensor = real) -> None:
            rows = values[real].double()
            sums[name] = sums.get(name, 0) + rows.T @ rows

        with torch.no_grad(), _inputs_of(model, parts, add):
            model(**_without_targets(batch))
    return {name: total / tokens for name, total in sums.items()}


@contextmanager
def _inputs_of(model: nn.Module, names: Sequence[str], visit: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
    """Show `visit` what flows into the named modules."""

    def hook(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        return lambda _, arguments: visit(name, arguments[0])

    handles = [model.get_submodule(name).register_forward_pre_hook(hook(name)) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _without_targets(batch: Batch) -> dict[str, torch.Tensor]:
    return {name: value for name, value in batch.items() if name != "labels"}
