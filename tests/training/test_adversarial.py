"""training/adversarial.py: where embeddings are moved, and that they come back."""

import pytest
import torch
import transformers

from tests.training import tiny
from training.adversarial import embeddings as table
from training.adversarial import moved_embeddings
from training.encoder import load_encoder
from training.sources import EncoderFolder


@pytest.fixture
def model(encoder: EncoderFolder) -> transformers.PreTrainedModel:
    return load_encoder(encoder, tiny.recipe(training__dropout=0.0))[0]


def loss_of(model: transformers.PreTrainedModel) -> torch.Tensor:
    ids = torch.tensor([[1, 5, 6, 2], [1, 7, 8, 2]])
    loss: torch.Tensor = model(input_ids=ids, labels=torch.tensor([0, 1])).loss
    return loss


def test_the_table_moves_that_far_to_where_the_loss_is_greater(model: transformers.PreTrainedModel) -> None:
    loss = loss_of(model)
    loss.backward()  # type: ignore[no-untyped-call]
    before = table(model).detach().clone()
    with moved_embeddings(model, 0.01) as moved:
        assert moved
        assert (table(model) - before).norm().item() == pytest.approx(0.01, rel=1e-3)
        assert loss_of(model).item() > loss.item()
    assert torch.equal(table(model), before)


def test_it_comes_back_after_an_error(model: transformers.PreTrainedModel) -> None:
    loss_of(model).backward()  # type: ignore[no-untyped-call]
    before = table(model).detach().clone()
    with pytest.raises(ZeroDivisionError), moved_embeddings(model, 1.0):
        raise ZeroDivisionError
    assert torch.equal(table(model), before)


@pytest.mark.parametrize("slope", [None, 0.0, float("nan"), float("inf")])
def test_without_a_slope_nothing_moves(model: transformers.PreTrainedModel, slope: float | None) -> None:
    weight = table(model)
    weight.grad = None if slope is None else torch.full_like(weight, slope)
    before = weight.detach().clone()
    with moved_embeddings(model, 1.0) as moved:
        assert not moved
        assert torch.equal(weight, before)


def test_gradients_of_other_batches_are_not_followed(model: transformers.PreTrainedModel) -> None:
    weight = table(model)
    before, own = torch.zeros_like(weight), torch.zeros_like(weight)
    before[3], own[5] = 7.0, 1.0
    weight.grad = before + own
    kept = weight.detach().clone()
    with moved_embeddings(model, 1.0, before):
        moved = (weight - kept).detach().norm(dim=1)
    assert moved.nonzero().flatten().tolist() == [5]
