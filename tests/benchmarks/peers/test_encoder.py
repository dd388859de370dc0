from pathlib import Path

import pytest

from benchmarks.peers.encoder import Encoder, TokenCounter, read_tokens
from tests.tiny_artifact import GOLDEN_TEXTS, publish_tiny


def test_texts_of_any_length_get_their_probabilities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = publish_tiny(tmp_path)
    monkeypatch.setenv("PEER_MODEL", str(folder / "model.onnx"))
    monkeypatch.setenv("PEER_TOKENIZER", str(folder / "tokenizer.json"))
    encoder = Encoder()
    together = encoder.scores(GOLDEN_TEXTS)
    assert [sum(row) for row in together] == pytest.approx([1.0] * len(GOLDEN_TEXTS))
    assert encoder.scores(GOLDEN_TEXTS[:1])[0] == pytest.approx(together[0])


def test_a_benchmark_reads_how_many_tokens_all_encoders_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = publish_tiny(tmp_path / "models")
    counts = tmp_path / "counts"
    counts.mkdir()
    monkeypatch.setenv("PEER_MODEL", str(folder / "model.onnx"))
    monkeypatch.setenv("PEER_TOKENIZER", str(folder / "tokenizer.json"))
    monkeypatch.setenv("PEER_COUNTS", str(counts))
    encoders = [Encoder(), Encoder()]
    assert read_tokens(counts) == (0, 0)
    encoders[0].scores(["good"])
    real, padded = read_tokens(counts)
    assert real == padded > 0
    encoders[1].scores(["good", "the film is very good and warm and funny"])
    both_real, both_padded = read_tokens(counts)
    assert both_padded - padded > both_real - real


def test_counts_add_up(tmp_path: Path) -> None:
    counter = TokenCounter(tmp_path)
    counter.add(3, 4)
    counter.add(5, 8)
    assert read_tokens(tmp_path) == (8, 12)
