"""training/reference.py: bins that cover everything, and shares that a reader can add up."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from artifact.manifest import Manifest
from tests.tiny_artifact import MAX_INPUT_TOKENS, publish_tiny, tiny_tokenizer
from training.reference import BINS, binned, quantile_edges, reference_of, score_edges


@pytest.fixture
def tiny(tmp_path: Path) -> tuple[Manifest, Tokenizer]:
    return publish_tiny(tmp_path / "models")[1], tiny_tokenizer()


def test_lengths_unknown_tokens_labels_and_scores_are_counted(tiny: tuple[Manifest, Tokenizer]) -> None:
    texts = ["good film", "a very good film", "zebra film", "the " * 200]
    scores = np.array([[0.1, 0.9], [0.2, 0.8], [0.52, 0.48], [0.3, 0.7]])
    found = reference_of(*tiny, texts, scores)
    assert found.rows == 4
    assert found.split == "test"
    assert list(found.label_shares) == [0.25, 0.75]
    assert list(found.unknown_tokens.shares) == [0.75, 0, 0, 0, 0, 0, 0.25, 0]  # one of four tokens
    assert found.unknown_token_share == pytest.approx(1 / (4 + 6 + 4 + MAX_INPUT_TOKENS))
    assert found.scores.shares[0] == 0.25
    assert sum(found.input_tokens.shares) == pytest.approx(1)


def test_it_survives_the_manifest(tiny: tuple[Manifest, Tokenizer]) -> None:
    found = reference_of(*tiny, ["good", "bad film"], np.array([[0.1, 0.9], [0.8, 0.2]]))
    manifest = tiny[0].model_copy(update={"reference": found})
    assert Manifest.model_validate_json(manifest.model_dump_json()).reference == found


@given(st.lists(st.integers(1, 512), min_size=1, max_size=200))
def test_bins_hold_every_value_and_none_is_empty_by_construction(lengths: list[int]) -> None:
    values = np.array(lengths, dtype=np.float64)
    edges = quantile_edges(values)
    assert len(edges) < BINS
    found = binned(values, edges)
    assert sum(found.shares) == pytest.approx(1)
    assert min(found.shares) > 0


@pytest.mark.parametrize("labels", [2, 3, 5, 64])
def test_score_bins_go_from_chance_to_certainty(labels: int) -> None:
    edges = score_edges(labels)
    assert len(edges) == BINS - 1
    assert 1 / labels < edges[0] < edges[-1] < 1


def test_an_edge_belongs_to_the_bin_below_it() -> None:
    assert binned(np.array([1.0, 2.0, 3.0]), (2.0,)).shares == pytest.approx((2 / 3, 1 / 3))
