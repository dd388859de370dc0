"""Cutting a model: what is left has the right shapes, what does not matter goes first, and it survives a reload."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from transformers import PreTrainedModel

from training import surgery
from training.classifier import load_model
from training.errors import TrainingError
from training.sources import EncoderFolder
from training.surgery import Batch

LAYER = "bert.encoder.layer.0"
JOINED = f"{LAYER}.attention.output.dense"
DOWN = f"{LAYER}.output.dense"


@pytest.fixture
def model(encoder: EncoderFolder) -> PreTrainedModel:
    torch.manual_seed(3)
    made: PreTrainedModel = transformers.AutoModelForSequenceClassification.from_pretrained(
        encoder.path, num_labels=2, attn_implementation="eager"
    )
    return made.eval()


@pytest.fixture
def batches() -> list[Batch]:
    random = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 60, (4, 9), generator=random)
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    return [{"input_ids": ids, "attention_mask": mask, "labels": torch.eye(2)[torch.tensor([0, 1, 1, 0])]}]


def logits(model: PreTrainedModel, batches: list[Batch]) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(**{name: batches[0][name] for name in ("input_ids", "attention_mask")}).logits
    return found


def weights_of(model: PreTrainedModel, name: str) -> torch.Tensor:
    found: torch.Tensor = model.get_parameter(f"{name}.weight")
    return found


def test_layers_are_kept_from_both_ends(encoder: EncoderFolder) -> None:
    config = transformers.AutoConfig.from_pretrained(encoder.path, num_hidden_layers=6)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    before = list(model.bert.encoder.layer)
    surgery.keep_layers(model, 3)
    assert [before.index(layer) for layer in model.bert.encoder.layer] == [0, 2, 5]
    assert model.config.num_hidden_layers == 3


@pytest.mark.parametrize("count", [0, 2, 3])
def test_more_layers_than_there_are_to_spare_is_an_error(model: PreTrainedModel, count: int) -> None:
    with pytest.raises(TrainingError, match=f"cannot keep {count} of 2 layers"):
        surgery.keep_layers(model, count)


def test_the_head_that_does_nothing_is_the_one_that_goes(model: PreTrainedModel, batches: list[Batch]) -> None:
    with torch.no_grad():
        for name in surgery.layer_names(model):
            weights_of(model, f"{name}.attention.output.dense")[:, :16] = 0
    before = logits(model, batches)
    surgery.remove_heads(model, 0.5, batches)
    assert weights_of(model, f"{LAYER}.attention.self.query").shape == (16, 32)
    assert weights_of(model, JOINED).shape == (32, 16)
    torch.testing.assert_close(logits(model, batches), before)


def test_neurons_that_do_nothing_go_first(model: PreTrainedModel, batches: list[Batch]) -> None:
    with torch.no_grad():
        for name in surgery.layer_names(model):
            weights_of(model, f"{name}.output.dense")[:, ::2] = 0
    before = logits(model, batches)
    surgery.remove_neurons(model, 0.5, batches)
    assert weights_of(model, f"{LAYER}.intermediate.dense").shape == (32, 32)
    torch.testing.assert_close(logits(model, batches), before)


def test_one_head_always_stays(model: PreTrainedModel, batches: list[Batch]) -> None:
    surgery.remove_heads(model, 0.99, batches)
    assert weights_of(model, JOINED).shape == (32, 16)


def test_factors_hold_the_share_of_numbers_asked_for(model: PreTrainedModel, batches: list[Batch]) -> None:
    before = weights_of(model, DOWN).numel()
    surgery.factorise(model, 0.5, batches)
    factors = sum(parameter.numel() for parameter in model.get_submodule(DOWN).parameters() if parameter.ndim == 2)
    assert 0.45 * before < factors <= 0.5 * before
    assert logits(model, batches).isfinite().all()


def test_all_ranks_give_the_matrix_back() -> None:
    linear = torch.nn.Linear(12, 8)
    rows = torch.randn(50, 12)
    factors = surgery.low_rank(linear, rows.T @ rows / 50, 8)
    torch.testing.assert_close(factors(rows), linear(rows), atol=1e-4, rtol=1e-3)


def test_the_inputs_decide_what_a_low_rank_keeps() -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(16, 16)
    rows = torch.randn(400, 16) * torch.logspace(-1.5, 1, 16)
    moment = rows.T @ rows / len(rows)
    weighted, plain = surgery.low_rank(linear, moment, 4), surgery.low_rank(linear, torch.eye(16), 4)
    wanted = linear(rows)
    assert (weighted(rows) - wanted).norm() < 0.5 * (plain(rows) - wanted).norm()


def test_the_smallest_weights_become_zero(model: PreTrainedModel) -> None:
    before = weights_of(model, DOWN).clone()
    surgery.zero_weights(model, 0.5)
    after = weights_of(model, DOWN)
    assert (after == 0).float().mean() == pytest.approx(0.5, abs=0.01)
    assert before[after == 0].abs().max() <= after[after != 0].abs().min()
    assert (model.classifier.weight != 0).all()


def test_clipping_holds_outliers_and_leaves_the_rest(model: PreTrainedModel) -> None:
    with torch.no_grad():
        weights_of(model, DOWN)[3, 5] = 100.0
    before = weights_of(model, DOWN).clone()
    surgery.clip_weights(model, 0.9)
    after = weights_of(model, DOWN)
    assert after.abs().max() < 1
    assert (after == before).float().mean() > 0.85


CUTS: dict[str, Callable[[PreTrainedModel, list[Batch]], None]] = {
    "layers": lambda model, _: surgery.keep_layers(model, 1),
    "heads": lambda model, batches: surgery.remove_heads(model, 0.5, batches),
    "neurons": lambda model, batches: surgery.remove_neurons(model, 0.25, batches),
    "svd": lambda model, batches: surgery.factorise(model, 0.5, batches),
    "zeros": lambda model, _: surgery.zero_weights(model, 0.3),
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_model_answers_the_same_after_a_reload(
    model: PreTrainedModel, batches: list[Batch], encoder: EncoderFolder, tmp_path: Path, cut: str
) -> None:
    CUTS[cut](model, batches)
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder.path)
    surgery.save_cut(model, tokenizer, tmp_path / "cut", cut)
    again = load_model(tmp_path / "cut")
    assert not again.training
    torch.testing.assert_close(logits(again, batches), logits(model, batches))


def test_cuts_follow_one_another(model: PreTrainedModel, batches: list[Batch]) -> None:
    surgery.keep_layers(model, 1)
    surgery.remove_heads(model, 0.5, batches)
    surgery.remove_neurons(model, 0.5, batches)
    surgery.factorise(model, 0.5, batches)
    assert logits(model, batches).isfinite().all()


def test_what_was_factorised_cannot_be_cut_again(model: PreTrainedModel, batches: list[Batch]) -> None:
    surgery.factorise(model, 0.5, batches)
    with pytest.raises(TrainingError, match="factorise last"):
        surgery.remove_neurons(model, 0.5, batches)


def test_a_model_of_another_build_is_refused() -> None:
    config = transformers.DistilBertConfig(vocab_size=30, dim=16, n_layers=2, n_heads=2, hidden_dim=32)
    with pytest.raises(TrainingError, match="not built like BERT's"):
        surgery.layer_names(transformers.DistilBertForSequenceClassification(config))


def test_a_folder_without_the_marker_is_no_cut_model(encoder: EncoderFolder) -> None:
    assert not surgery.is_cut(encoder.path)
