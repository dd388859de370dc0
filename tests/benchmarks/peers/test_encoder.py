from pathlib import Path

import pytest

from benchmarks.peers.encoder import Encoder
from tests.tiny_artifact import GOLDEN_TEXTS, publish_tiny


def test_texts_of_any_length_get_their_probabilities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = publish_tiny(tmp_path)
    monkeypatch.setenv("PEER_MODEL", str(folder / "model.onnx"))
    monkeypatch.setenv("PEER_TOKENIZER", str(folder / "tokenizer.json"))
    encoder = Encoder()
    together = encoder.scores(GOLDEN_TEXTS)
    assert [sum(row) for row in together] == pytest.approx([1.0] * len(GOLDEN_TEXTS))
    assert encoder.scores(GOLDEN_TEXTS[:1])[0] == pytest.approx(together[0])
