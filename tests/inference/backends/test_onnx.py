"""ONNX Runtime behind the seam."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
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


def _with_data(path: Path) -> Path:
    """The graph at `path` again, its weights in a file beside it."""
    beside = path.with_name("beside.onnx")
    onnx.save(onnx.load(path), beside, save_as_external_data=True, location="beside.onnx.data", size_threshold=100)
    return beside


def test_weights_in_a_file_beside_the_graph_are_read_with_it(tmp_path: Path) -> None:
    path = publish_tiny(tmp_path)[0] / "model.onnx"
    feed = {"input_ids": np.array([[2, 4, 3]]), "attention_mask": np.ones((1, 3), dtype=np.int64)}
    beside = OnnxBackend(_with_data(path)).infer(feed)["logits"]
    assert np.array_equal(beside, OnnxBackend(path).infer(feed)["logits"])


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"short")])
def test_weights_that_are_gone_or_short_are_refused(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    beside = _with_data(publish_tiny(tmp_path)[0] / "model.onnx")
    damage(beside.with_name("beside.onnx.data"))
    with pytest.raises(ArtifactCorrupt, match=r"beside\.onnx"):
        OnnxBackend(beside)


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(ArtifactCorrupt, match=r"model\.onnx"):
        OnnxBackend(tmp_path / "model.onnx")
