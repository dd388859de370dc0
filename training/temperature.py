"""Scores that mean what they say: one temperature, fitted on held-out texts and folded into the classifier's head.

Source: Guo et al. 2017, On Calibration of Modern Neural Networks, arXiv:1706.04599.
"""

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import transformers
from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]

from training.evaluate import softmax

_LOG_TEMPERATURES: Final = (math.log(0.1), math.log(10.0))


def best_temperature(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.int64]) -> float:
    """The temperature that gives the lowest log loss (Guo et al. 2017, section 4.2). It changes no label."""

    def log_loss(log_temperature: float) -> float:
        scores = softmax(logits / np.exp(log_temperature))
        return float(-np.log(np.clip(scores[np.arange(len(labels)), labels], 1e-15, 1)).mean())

    return float(np.exp(minimize_scalar(log_loss, bounds=_LOG_TEMPERATURES, method="bounded").x))


def divide_logits(model: transformers.PreTrainedModel, temperature: float) -> bool:
    """Divide the last linear layer by `temperature`; False, and nothing changed, if that does not do it to the logits.

    Folded into the weights, the temperature costs nothing at serving time and no exporter needs to know of it.
    """
    heads = [
        module
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and module.out_features == model.config.num_labels
    ]
    if not heads:
        return False
    probe = torch.arange(8, device=model.device).unsqueeze(0)
    with torch.inference_mode():
        before = model(input_ids=probe, attention_mask=torch.ones_like(probe)).logits
        _scale(heads[-1], 1 / temperature)
        after = model(input_ids=probe, attention_mask=torch.ones_like(probe)).logits
    if torch.allclose(after * temperature, before, rtol=1e-3, atol=1e-4):
        return True
    _scale(heads[-1], temperature)
    return False


def _scale(layer: torch.nn.Linear, factor: float) -> None:
    with torch.no_grad():
        layer.weight.mul_(factor)
        if layer.bias is not None:
            layer.bias.mul_(factor)
