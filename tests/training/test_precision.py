"""training/precision.py: what was asked for is taken, and what is found suits the machine."""

from tests.training import tiny
from training.encoder import load_encoder
from training.precision import choose_precision
from training.sources import EncoderFolder


def test_a_wanted_precision_is_not_second_guessed(encoder: EncoderFolder) -> None:
    model = load_encoder(encoder, tiny.recipe())[0]
    assert choose_precision("fp32", model) == "fp32"
    assert choose_precision("auto", model) in {"fp32", "bf16", "fp16"}
    assert all(parameter.grad is None for parameter in model.parameters())
