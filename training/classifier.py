"""A classifier in the hub's layout: read back from its folder, and asked for its logits by torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import torch
import transformers
from rich.progress import Progress

from training.errors import RecipeInvalid
from training.recipe import TrainingSection
from training.surgery import is_cut, load_cut
from training.windowing import Row, averaged, windowed

Attention = Literal["eager", "sdpa"]
_UNBOUNDED_TOKENS: Final = 100_000
_FALLBACK_TOKENS: Final = 512


def load_model(model_dir: Path, attention: Attention | None = "eager") -> transformers.PreTrainedModel:
    """The classifier in `model_dir`, fp32, in evaluation mode. `eager` attention is what exporters trace best."""
    if is_cut(model_dir):
        return load_cut(model_dir, attention)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        model_dir, attn_implementation=attention, dtype=torch.float32, local_files_only=True, use_safetensors=True
    )
    return model.eval()


def load_tokenizer(model_dir: Path) -> transformers.PreTrainedTokenizerFast:
    """The fast tokenizer in `model_dir`, without the padding or truncation it may have been saved with."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir, use_fast=True, local_files_only=True)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def predict_logits(
    model: transformers.PreTrainedModel,
    tokenizer: transformers.PreTrainedTokenizerFast,
    texts: Sequence[str],
    *,
    max_tokens: int,
    window_tokens: int | None = None,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> npt.NDArray[np.float32]:
    """Logits of shape (texts, labels), by torch: the reference that every exported variant is held against.

    With `window_tokens` they are the mean over the windows that serving reads a text in.
    """
    rows, owners = windowed(tokenizer, texts, max_tokens, window_tokens)
    return averaged(row_logits(model, tokenizer, rows, batch_size=batch_size, progress=progress), owners)


def row_logits(
    model: transformers.PreTrainedModel,
    tokenizer: transformers.PreTrainedTokenizerFast,
    encoded: Sequence[Row],
    *,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> npt.NDArray[np.float32]:
    """Logits of shape (rows, labels) for texts that are tokenized, by torch, in batches of like length."""
    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index]["input_ids"]))
    logits = np.zeros((len(encoded), model.config.num_labels), dtype=np.float32)
    task = progress.add_task("Predicting", total=len(encoded)) if progress else None
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = tokenizer.pad([encoded[index] for index in chosen], return_tensors="pt").to(model.device)
        with torch.inference_mode():
            logits[chosen] = model(**batch).logits.float().cpu().numpy()
        if progress and task is not None:
            progress.update(task, completed=start + len(chosen))
    if progress and task is not None:
        progress.remove_task(task)
    return logits


def max_input_tokens(model: transformers.PreTrainedModel, tokenizer: transformers.PreTrainedTokenizerFast) -> int:
    """Positions the encoder really has, special tokens included.

    The tokenizer's own figure is only believed where the model names none: sentence encoders set it lower than need be.
    """
    positions = getattr(model.config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        return positions - _positions_lost_to_padding(model)
    own: int = tokenizer.model_max_length
    return own if 0 < own < _UNBOUNDED_TOKENS else _FALLBACK_TOKENS


def text_limit(section: TrainingSection, positions: int) -> int:
    """Tokens of the longest text, special ones included. Raises RecipeInvalid for too wide a window."""
    if section.window_tokens is None:
        return positions
    if section.window_tokens > positions:
        raise RecipeInvalid(
            f"training.window_tokens: {section.window_tokens}, but the encoder has {positions} positions"
        )
    return section.max_text_tokens


def _positions_lost_to_padding(model: transformers.PreTrainedModel) -> int:
    """RoBERTa and its kin number positions from padding_idx + 1, so two of their 514 are never used."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0
