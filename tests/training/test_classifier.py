"""training/classifier.py: a tiny model read back from its folder, and asked."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from tests.training import tiny
from training.classifier import load_model, load_tokenizer, max_input_tokens, predict_logits
from training.encoder import load_encoder
from training.sources import EncoderFolder
from training.windowing import encode

TEXTS = tuple(" ".join(tiny.PLAIN[:words]) for words in (1, 9, 3, 5, 2, 7, 4))


@pytest.fixture(scope="module")
def folder(encoder: EncoderFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier with a random head, as fine-tuning would leave one."""
    found = tmp_path_factory.mktemp("classifier")
    for part in load_encoder(encoder, tiny.recipe()):
        part.save_pretrained(found)
    return found


def test_roberta_loses_two_positions_to_padding() -> None:
    config = transformers.RobertaConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=34
    )
    model = transformers.RobertaForSequenceClassification(config)
    assert max_input_tokens(model, transformers.BertTokenizerFast()) == 32


def test_what_was_saved_is_read_back_ready_to_be_asked(folder: Path) -> None:
    model = load_model(folder)
    assert not model.training
    assert model.config._attn_implementation == "eager"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_tokenizer_neither_cuts_nor_pads_as_it_was_saved(folder: Path, encoder: EncoderFolder) -> None:
    long = " ".join(tiny.PLAIN)
    for place in (folder, encoder.path):
        lengths = [len(ids) for ids in load_tokenizer(place)(["the film", long])["input_ids"]]
        assert lengths == [4, len(tiny.PLAIN) + 2]


def test_predictions_do_not_depend_on_order_or_batch(folder: Path) -> None:
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    together = predict_logits(model, tokenizer, TEXTS, max_tokens=tiny.MAX_TOKENS)
    alone = predict_logits(model, tokenizer, TEXTS[::-1], max_tokens=tiny.MAX_TOKENS, batch_size=1)[::-1]
    assert together.shape == (len(TEXTS), 2)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_texts_are_cut_at_the_limit(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    assert [len(each["input_ids"]) for each in encode(tokenizer, TEXTS, 6)] == [3, 6, 5, 6, 4, 6, 6]
    model = load_model(folder)
    one, other = predict_logits(model, tokenizer, [TEXTS[1], " ".join(tiny.PLAIN[:4])], max_tokens=6)
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_model_is_believed_before_the_tokenizer(folder: Path) -> None:
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    tokenizer.model_max_length = 7
    assert max_input_tokens(model, tokenizer) == tiny.MAX_TOKENS


def test_a_model_without_numbered_positions_takes_what_its_tokenizer_says() -> None:
    config = transformers.BloomConfig(vocab_size=50, hidden_size=16, n_layer=1, n_head=2, pad_token_id=0)
    model = transformers.BloomForSequenceClassification(config)
    assert max_input_tokens(model, transformers.BertTokenizerFast(model_max_length=7)) == 7
    assert max_input_tokens(model, transformers.BertTokenizerFast()) == 512
