"""training/baseline.py: the frozen encoder under a logistic regression."""

import numpy as np
import pytest
from rich.progress import Progress

from tests.training import tiny
from training.baseline import embed, train_baseline
from training.prepare import prepare
from training.sources import EncoderFolder


def test_a_frozen_random_encoder_still_beats_chance(encoder: EncoderFolder, progress: Progress) -> None:
    recipe = tiny.recipe()
    prepared = prepare(tiny.table(400), recipe, progress)
    baseline = train_baseline(recipe, prepared, encoder, progress)
    assert baseline.test_scores.shape == (len(prepared.test), 2)
    np.testing.assert_allclose(baseline.test_scores.sum(axis=1), 1)
    assert baseline.evaluation.rows == len(prepared.test)
    assert baseline.evaluation.metrics["accuracy"].value > 0.6


def test_embeddings_are_unit_vectors_that_ignore_padding(encoder: EncoderFolder, progress: Progress) -> None:
    texts = ["a superb film", "a dull story of a war in the winter with its house and garden and train"]
    together = embed(encoder, texts, 64, progress)
    alone = np.concatenate([embed(encoder, [text], 64, progress) for text in texts])
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_long_texts_are_cut_to_what_the_encoder_takes(encoder: EncoderFolder, progress: Progress) -> None:
    assert embed(encoder, ["film " * 500], 8192, progress).shape == (1, 32)


def test_of_a_large_split_it_learns_from_a_part(
    encoder: EncoderFolder, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare(tiny.table(400), tiny.recipe(), progress)
    whole = train_baseline(tiny.recipe(), prepared, encoder, progress)
    monkeypatch.setattr("training.baseline._MOST_ROWS", 200)
    part = train_baseline(tiny.recipe(), prepared, encoder, progress)
    assert part.test_scores.shape == whole.test_scores.shape
    assert not np.array_equal(part.test_scores, whole.test_scores)
    assert part.evaluation.metrics["accuracy"].value > 0.55
