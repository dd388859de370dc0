"""training/encoder.py: a tiny encoder under a new head."""

import dataclasses
from pathlib import Path

import pytest
import torch

from tests.training import tiny
from training.encoder import load_encoder
from training.errors import RecipeInvalid, SourceUnavailable
from training.sources import EncoderFolder


def test_the_head_is_the_recipes_and_the_tokenizer_knows_the_limit(encoder: EncoderFolder) -> None:
    recipe = tiny.recipe(labels=["a", "b", "c"])
    model, tokenizer = load_encoder(encoder, recipe)
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert model.classifier.weight.shape[0] == 3
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert tokenizer.model_max_length == tiny.MAX_TOKENS


def test_a_folder_that_classifies_already_gets_a_new_head(encoder: EncoderFolder, tmp_path: Path) -> None:
    for part in load_encoder(encoder, tiny.recipe()):
        part.save_pretrained(tmp_path)
    before = dataclasses.replace(encoder, path=tmp_path)
    model = load_encoder(before, tiny.recipe(labels=["a", "b", "c"]))[0]
    assert model.classifier.weight.shape[0] == 3


def test_dropout_and_layers_are_the_recipes(encoder: EncoderFolder) -> None:
    model = load_encoder(encoder, tiny.recipe(training__dropout=0.2, training__encoder_layers=1))[0]
    assert model.config.hidden_dropout_prob == model.config.attention_probs_dropout_prob == 0.2
    assert len(model.bert.encoder.layer) == 1


def test_more_layers_than_there_are_are_refused(encoder: EncoderFolder) -> None:
    with pytest.raises(RecipeInvalid, match=r"training\.encoder_layers: 3, but the encoder has 2"):
        load_encoder(encoder, tiny.recipe(training__encoder_layers=3))


def test_what_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SourceUnavailable, match="encoder broken: transformers cannot load"):
        load_encoder(EncoderFolder(tmp_path, "broken", "", ""), tiny.recipe())
