"""ONNX Runtime behind the seam."""

from pathlib import Path

import numpy as np
import pytest

from artifact.errors import ArtifactCorrupt
from inference.backends.onnx import OnnxBackend
from tests.tiny_artifact import publish_tiny


def test_it_gives_a_row_for_each_input_and_ignores_what_the_graph_lacks(tmp_path: Path) -> None:
    path, _ = publish_tiny(tmp_path)
    ids = np.array([[2, 4, 3], [2, 10, 3]])
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    logits = OnnxBackend(path / "model.onnx").infer(inputs)["logits"]
    assert logits.shape == (2, 2)
    assert logits.argmax(axis=1).tolist() == [1, 0]


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(ArtifactCorrupt, match=r"model\.onnx"):
        OnnxBackend(tmp_path / "model.onnx")
