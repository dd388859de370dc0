"""The baseline a fine-tuned model must beat: the same encoder, frozen, under a logistic regression."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import transformers
from rich.progress import Progress
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from training.classifier import load_tokenizer, max_input_tokens
from training.evaluate import Evaluation, evaluate
from training.prepare import Prepared, spread
from training.quiet import quiet
from training.recipe import Recipe
from training.sources import EncoderFolder

# Inverse regularisation strengths; the validation split chooses, so that the baseline is no straw man.
STRENGTHS: Final = (0.1, 1.0, 10.0, 100.0)
_BATCH: Final = 64
_MOST_ROWS: Final = 10_000

Embeddings = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Baseline:
    """Scores of shape (test rows, labels) and what they are worth."""

    test_scores: npt.NDArray[np.float64]
    evaluation: Evaluation


def train_baseline(recipe: Recipe, prepared: Prepared, encoder: EncoderFolder, progress: Progress) -> Baseline:
    """Embed every split with the frozen encoder, fit on train, choose on validation, measure on test.

    Of a large training split it learns from `_MOST_ROWS`, spread evenly: a linear classifier of a few hundred weights
    gains nothing from more. Texts are cut where fine-tuning cuts them, or at its window.
    """
    rows = spread(len(prepared.train), _MOST_ROWS)
    with quiet():
        train, validation, test = (
            embed(encoder, texts, recipe.training.row_tokens, progress)
            for texts in (
                [prepared.train.texts[row] for row in rows],
                prepared.validation.texts,
                prepared.test.texts,
            )
        )
    scores = classify((train, prepared.train.labels[rows]), (validation, prepared.validation.labels), test)
    return Baseline(scores, evaluate(scores, prepared.test.labels, recipe.labels))


def classify(
    train: tuple[Embeddings, Labels], validation: tuple[Embeddings, Labels], test: Embeddings
) -> npt.NDArray[np.float64]:
    """Fit on train at every strength, keep the best on validation: scores of shape (test rows, labels).

    Every label must occur in train.
    """
    models = [LogisticRegression(C=strength, max_iter=2000).fit(*train) for strength in STRENGTHS]
    inputs, labels = validation
    known = models[0].classes_
    best = min(models, key=lambda model: log_loss(labels, model.predict_proba(inputs), labels=known))
    scores: npt.NDArray[np.float64] = best.predict_proba(test)
    return scores


def embed(encoder: EncoderFolder, texts: Sequence[str], max_tokens: int, progress: Progress) -> npt.NDArray[np.float32]:
    """Unit-length mean-pooled embeddings of shape (texts, hidden size), as sentence encoders are meant to be used.

    Mean pooling over real tokens and normalisation: Reimers & Gurevych 2019.
    """
    model = transformers.AutoModel.from_pretrained(
        encoder.path, dtype=torch.float32, local_files_only=True, use_safetensors=True
    ).eval()
    tokenizer = load_tokenizer(encoder.path)
    cut = min(max_tokens, max_input_tokens(model, tokenizer))
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    pooled = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
    task = progress.add_task("Embedding for the baseline", total=len(texts))
    for start in range(0, len(order), _BATCH):
        chosen = order[start : start + _BATCH]
        batch = tokenizer(
            [texts[index] for index in chosen], truncation=True, max_length=cut, padding=True, return_tensors="pt"
        )
        with torch.inference_mode():
            hidden = model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1)
            mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
            pooled[chosen] = torch.nn.functional.normalize(mean, dim=1).numpy()
        progress.update(task, completed=start + len(chosen))
    progress.remove_task(task)
    return pooled
