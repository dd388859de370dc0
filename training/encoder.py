"""An encoder with a new head for the labels of a recipe."""

from pathlib import Path
from typing import Final

import torch
import transformers

from training.classifier import load_tokenizer, max_input_tokens
from training.errors import RecipeInvalid, SourceUnavailable
from training.recipe import Recipe
from training.sources import EncoderFolder

# What encoders call their dropout rates.
_DROPOUTS: Final = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "dropout",
    "attention_dropout",
    "seq_classif_dropout",
)


def load_encoder(
    encoder: EncoderFolder, recipe: Recipe
) -> tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizerFast]:
    """The encoder under a new head, fp32, and its tokenizer, which knows the encoder's limit.

    Raises SourceUnavailable when it cannot be loaded, RecipeInvalid when it has fewer layers than the recipe wants.
    """
    try:
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            encoder.path,
            config=_configured(encoder.path, recipe),
            # A folder that already classifies something else keeps its encoder and gets a new head.
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
        )
        tokenizer = load_tokenizer(encoder.path)
    except (OSError, ValueError, KeyError) as error:
        raise SourceUnavailable(f"encoder {encoder.name}: transformers cannot load {encoder.path}") from error
    limit = max_input_tokens(model, tokenizer)
    tokenizer.model_max_length = limit
    return model, tokenizer


def _configured(folder: Path, recipe: Recipe) -> transformers.PretrainedConfig:
    """The encoder's configuration with the recipe's labels, dropout and number of layers. Raises RecipeInvalid."""
    section = recipe.training
    names = dict(enumerate(recipe.labels))
    config = transformers.AutoConfig.from_pretrained(
        folder,
        num_labels=len(recipe.labels),
        id2label=names,
        label2id={label: index for index, label in names.items()},
        local_files_only=True,
    )
    if section.dropout is not None:
        for name in _DROPOUTS:
            if hasattr(config, name):
                setattr(config, name, section.dropout)
    if section.encoder_layers is not None:
        if section.encoder_layers > config.num_hidden_layers:
            raise RecipeInvalid(
                f"training.encoder_layers: {section.encoder_layers}, but the encoder has {config.num_hidden_layers}"
            )
        config.num_hidden_layers = section.encoder_layers
    return config
