"""The short loop: it learns labels, follows a teacher, keeps zeros, and stops at a loss that is no number."""

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from rich.progress import Progress

from tests.training import tiny
from training.classifier import load_tokenizer, predict_logits
from training.distil import Lesson, padded, teach
from training.errors import FineTuneFailed
from training.recipe import TrainingSection
from training.sources import EncoderFolder
from training.surgery import zero_weights
from training.windowing import encode

TABLE = tiny.table(240)
TEXTS = tuple(row.text for row in TABLE.rows)
LABELS = np.array([row.label for row in TABLE.rows])
TARGETS = np.eye(2, dtype=np.float32)[LABELS]
SECTION = TrainingSection(learning_rate=5e-3, batch_size=16, precision="fp32", max_tokens=32, warmup=0.1)


def fresh(encoder: EncoderFolder) -> transformers.PreTrainedModel:
    torch.manual_seed(7)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(encoder.path, num_labels=2)
    return model.eval()


def taught(encoder: EncoderFolder, progress: Progress, lesson: Lesson) -> transformers.PreTrainedModel:
    model = fresh(encoder)
    teach(model, load_tokenizer(encoder.path), lesson, SECTION, progress)
    return model


def accuracy(model: transformers.PreTrainedModel, encoder: EncoderFolder, labels: NDArray[np.int64]) -> float:
    found = predict_logits(model, load_tokenizer(encoder.path), TEXTS[180:], max_tokens=32)
    return float((found.argmax(axis=1) == labels[180:]).mean())


def test_labels_are_learned(encoder: EncoderFolder, progress: Progress) -> None:
    model = taught(encoder, progress, Lesson(TEXTS[:180], TARGETS[:180], None, 4))
    assert not model.training
    assert accuracy(model, encoder, LABELS) > 0.85
    assert progress.finished


def test_a_teacher_alone_is_enough_for_texts_without_labels(encoder: EncoderFolder, progress: Progress) -> None:
    teacher = (4 * TARGETS[:180] - 2).astype(np.float32)
    model = taught(encoder, progress, Lesson(TEXTS[:180], TARGETS[:8], teacher, 4))
    assert accuracy(model, encoder, LABELS) > 0.85


def test_a_teacher_weighs_against_the_labels(encoder: EncoderFolder, progress: Progress) -> None:
    contrary = (8 - 16 * TARGETS[:180]).astype(np.float32)
    model = taught(encoder, progress, Lesson(TEXTS[:180], TARGETS[:180], contrary, 3))
    assert accuracy(model, encoder, 1 - LABELS) > 0.7


def test_the_same_seed_gives_the_same_weights(encoder: EncoderFolder, progress: Progress) -> None:
    lesson = Lesson(TEXTS[:64], TARGETS[:64], None, 1)
    one, other = (taught(encoder, progress, lesson).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_weights_that_were_cut_stay_cut(encoder: EncoderFolder, progress: Progress) -> None:
    model = fresh(encoder)
    zero_weights(model, 0.5)
    weight = model.get_parameter("bert.encoder.layer.1.output.dense.weight")
    before = weight.detach().clone()
    teach(model, load_tokenizer(encoder.path), Lesson(TEXTS[:64], TARGETS[:64], None, 1), SECTION, progress)
    assert torch.equal(weight == 0, before == 0)
    assert not torch.equal(weight, before)


def test_a_loss_that_is_no_number_ends_it(encoder: EncoderFolder, progress: Progress) -> None:
    targets = TARGETS[:64] * np.float32("nan")
    with pytest.raises(FineTuneFailed, match="not a number at step 1"):
        taught(encoder, progress, Lesson(TEXTS[:64], targets, None, 1))


def test_long_texts_are_cut_and_short_ones_padded(encoder: EncoderFolder) -> None:
    tokenizer = load_tokenizer(encoder.path)
    rows = encode(tokenizer, ["film", "film " * 50], 12)
    assert [len(row["input_ids"]) for row in rows] == [3, 12]
    assert padded(tokenizer, rows)["attention_mask"].sum(dim=1).tolist() == [3, 12]
