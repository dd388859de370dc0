"""training/precision.py: what was asked for is taken, and what is found suits the machine."""

import torch

from tests.training import tiny
from training.encoder import load_encoder
from training.precision import choose_precision, torch_threads
from training.sources import EncoderFolder


def test_a_wanted_precision_is_not_second_guessed(encoder: EncoderFolder) -> None:
    model = load_encoder(encoder, tiny.recipe())[0]
    assert choose_precision("fp32", model) == "fp32"
    assert choose_precision("auto", model) in {"fp32", "bf16", "fp16"}
    assert all(parameter.grad is None for parameter in model.parameters())


def test_threads_are_those_asked_for_and_put_back() -> None:
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with torch_threads(0):
        assert torch.get_num_threads() == before
        torch.set_num_threads(before + 1)
    assert torch.get_num_threads() == before
