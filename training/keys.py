"""What decides a model's weights, as hashes."""

import hashlib
import json
from pathlib import Path
from typing import Any, Final

from artifact.files import record
from training.prepare import Prepared
from training.recipe import Recipe, TrainingSection
from training.steps import code_key, key_of

# Fields of [training] that the first runs did not have.
_LATER: Final = frozenset(
    {
        "adversarial",
        "class_weights",
        "optimizer",
        "dropout",
        "frozen_layers",
        "encoder_layers",
        "window_tokens",
        "max_text_tokens",
    }
)


def run_key(recipe: Recipe, prepared: Prepared) -> str:
    """A hash of all in recipe and data that decides the weights. The encoder counts by its name alone."""
    parts = {
        "fingerprint": prepared.fingerprint,
        "max_rows": recipe.max_rows,
        "encoder": recipe.encoder.model_dump(mode="json"),
        "training": _deciding(recipe.training),
    }
    if recipe.training.class_weights == "balanced_by_source":
        parts["sources"] = key_of(*prepared.train.sources, *prepared.validation.sources)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def weights_digest(folder: Path) -> str:
    """SHA-256 over the SHA-256 of each safetensors file in `folder`. Raises OSError."""
    hasher = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as stream:
            hasher.update(hashlib.file_digest(stream, "sha256").digest())
    return hasher.hexdigest()


def weights_key(model_dir: Path) -> str:
    """A hash of every file of a model's folder."""
    return key_of({path.name: record(path).sha256 for path in sorted(model_dir.iterdir())})


def encoder_digest(folder: Path) -> str:
    """SHA-256 over an encoder's configuration, tokenizer and weights: what decides a model. Raises OSError."""
    hasher = hashlib.sha256(weights_digest(folder).encode())
    for name in ("config.json", "tokenizer.json", "vocab.txt"):
        if (path := folder / name).is_file():
            hasher.update(f"{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return hasher.hexdigest()


def explored_key(recipe: Recipe, prepared: Prepared, encoder: str) -> str:
    """A hash of the prepared rows, the counts of the others, and how they are read; `encoder` is its digest."""
    read = (recipe.training.row_tokens, recipe.training.window_tokens)
    counted = (prepared.counts, prepared.transformed, prepared.masked)
    return key_of(code_key(), prepared.fingerprint, counted, read, encoder)


def folds_key(recipe: Recipe, prepared: Prepared, encoder: str) -> str:
    """A hash of all that decides what cross-validating the recipe comes to; `encoder` is its digest."""
    return key_of(code_key(), run_key(recipe, prepared), encoder)


def _deciding(section: TrainingSection) -> dict[str, Any]:
    """The section's values. Fields that came later count only when set: runs of before them keep their key."""
    values: dict[str, Any] = section.model_dump(mode="json")
    defaults = {name: field.default for name, field in TrainingSection.model_fields.items()}
    return {name: value for name, value in values.items() if name not in _LATER or value != defaults[name]}
