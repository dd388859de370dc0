"""training/optimize.py: rates by depth, and layers that stay as they are."""

import pytest
import torch

from tests.training import tiny
from training.encoder import load_encoder
from training.errors import RecipeInvalid
from training.optimize import freeze, optimizer_of, parameter_groups
from training.sources import EncoderFolder


def test_layers_below_learn_more_slowly(encoder: EncoderFolder) -> None:
    model = load_encoder(encoder, tiny.recipe())[0]
    section = tiny.recipe(training__layer_decay=0.5, training__learning_rate=0.8).training
    groups = parameter_groups(model, section)
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    by_name = {name: rates[id(parameter)] for name, parameter in model.named_parameters()}
    assert by_name["classifier.weight"] == by_name["bert.pooler.dense.weight"] == 0.8
    assert by_name["bert.encoder.layer.1.output.dense.weight"] == pytest.approx(0.4)
    assert by_name["bert.encoder.layer.0.output.dense.weight"] == pytest.approx(0.2)
    assert by_name["bert.embeddings.word_embeddings.weight"] == pytest.approx(0.1)
    plain = {id(parameter) for group in groups if group["weight_decay"] == 0 for parameter in group["params"]}
    assert id(model.classifier.bias) in plain
    assert id(model.classifier.weight) not in plain


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("adamw", torch.optim.AdamW),
        ("nadam", torch.optim.NAdam),
        ("adafactor", torch.optim.Adafactor),
        ("sgd", torch.optim.SGD),
    ],
)
def test_the_recipe_names_the_optimizer(name: str, kind: type, encoder: EncoderFolder) -> None:
    model = load_encoder(encoder, tiny.recipe())[0]
    assert type(optimizer_of(model, tiny.recipe(training__optimizer=name).training)) is kind


def test_what_is_frozen_has_no_rate(encoder: EncoderFolder) -> None:
    model = load_encoder(encoder, tiny.recipe())[0]
    freeze(model, 1)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not [name for name in trained if name.startswith(("bert.embeddings.", "bert.encoder.layer.0."))]
    assert {"bert.encoder.layer.1.output.dense.weight", "classifier.weight"} <= trained
    groups = parameter_groups(model, tiny.recipe().training)
    assert sum(len(group["params"]) for group in groups) == len(trained)


def test_embeddings_that_are_moved_are_trained_above_frozen_layers(encoder: EncoderFolder) -> None:
    model = load_encoder(encoder, tiny.recipe())[0]
    freeze(model, 1, embeddings=False)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert "bert.embeddings.word_embeddings.weight" in trained
    assert not [name for name in trained if name.startswith("bert.encoder.layer.0.")]


def test_nothing_is_frozen_unless_asked(encoder: EncoderFolder) -> None:
    model = load_encoder(encoder, tiny.recipe())[0]
    freeze(model, 0)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_more_layers_than_there_are_cannot_be_frozen(encoder: EncoderFolder) -> None:
    model = load_encoder(encoder, tiny.recipe())[0]
    with pytest.raises(RecipeInvalid, match=r"training\.frozen_layers: 3, but the encoder has 2 layers"):
        freeze(model, 3)
