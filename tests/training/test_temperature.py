"""One temperature: found, folded in, and left alone where it cannot be."""

import numpy as np
import pytest
import torch
import transformers

from training.evaluate import softmax
from training.sources import EncoderFolder
from training.temperature import best_temperature, divide_logits


def test_the_best_temperature_undoes_a_wrong_one() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 2)) * 2
    labels = (rng.uniform(size=20_000) < softmax(logits)[:, 1]).astype(np.int64)
    assert best_temperature(logits * 3, labels) == pytest.approx(3, rel=0.05)


def test_a_model_without_a_linear_head_is_left_as_it_is(encoder: EncoderFolder) -> None:
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(encoder.path, num_labels=2).eval()
    assert divide_logits(model, 2.0)
    with torch.no_grad():
        model.classifier.weight.mul_(1000)
    model.classifier = torch.nn.Sequential(model.classifier, torch.nn.Tanh())
    weight = model.classifier[0].weight.clone()
    assert not divide_logits(model, 2.0)
    torch.testing.assert_close(model.classifier[0].weight, weight)
