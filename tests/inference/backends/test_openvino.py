"""OpenVINO behind the same seam. The `dev` extra installs it: these tests are never skipped."""

import importlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from artifact.errors import ArtifactCorrupt, ArtifactError
from inference.backends import openvino
from inference.backends.onnx import OnnxBackend
from inference.backends.openvino import OpenVinoBackend
from tests.tiny_artifact import publish_tiny


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return publish_tiny(tmp_path)[0] / "model.onnx"


def _feed(ids: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 0.05)])
def test_it_gives_what_onnxruntime_gives(model: Path, precision: str, tolerance: float) -> None:
    backend = OpenVinoBackend(model, precision="bf16" if precision == "bf16" else "fp32")
    feed = _feed(np.array([[2, 4, 3], [2, 10, 3]]))
    assert np.allclose(backend.infer(feed)["logits"], OnnxBackend(model).infer(feed)["logits"], atol=tolerance)
    assert backend.engine == ("openvino" if precision == "fp32" else "openvino-bf16")


def test_weights_in_a_file_beside_the_graph_are_read_with_it(model: Path) -> None:
    beside = model.with_name("beside.onnx")
    onnx.save(onnx.load(model), beside, save_as_external_data=True, location="beside.onnx.data", size_threshold=100)
    feed = _feed(np.array([[2, 4, 3]]))
    assert np.array_equal(OpenVinoBackend(beside).infer(feed)["logits"], OpenVinoBackend(model).infer(feed)["logits"])


def test_a_row_is_the_same_alone_and_among_others(model: Path) -> None:
    backend = OpenVinoBackend(model, precision="bf16")
    rows = np.random.default_rng(0).integers(4, 20, (16, 9))
    together = backend.infer(_feed(rows))["logits"]
    alone = np.concatenate([backend.infer(_feed(rows[place : place + 1]))["logits"] for place in range(16)])
    assert np.allclose(together, alone, atol=1e-6)


def test_answers_stay_with_who_asked_when_many_threads_ask(model: Path) -> None:
    backend = OpenVinoBackend(model, workers=2)
    feeds = [_feed(np.full((1 + number % 3, 2 + number % 7), 4 + number % 12)) for number in range(200)]
    expected = [OnnxBackend(model).infer(feed)["logits"] for feed in feeds]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(backend.infer, feeds))
    for answer, right in zip(answers, expected, strict=True):
        assert np.allclose(answer["logits"], right, atol=1e-5)


def test_an_answer_is_not_overwritten_by_the_next(model: Path) -> None:
    backend = OpenVinoBackend(model)
    first = backend.infer(_feed(np.array([[2, 4, 3]])))["logits"]
    kept = first.copy()
    backend.infer(_feed(np.array([[2, 10, 3]])))
    assert np.array_equal(first, kept)


def test_after_a_failure_it_goes_on(model: Path) -> None:
    backend = OpenVinoBackend(model)
    feed = _feed(np.array([[2, 4, 3]]))
    before = backend.infer(feed)["logits"]
    with pytest.raises(RuntimeError):
        backend.infer({**feed, "attention_mask": np.ones((1, 3, 1), dtype=np.int64)})
    assert np.array_equal(backend.infer(feed)["logits"], before)


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(ArtifactCorrupt, match=r"model\.onnx"):
        OpenVinoBackend(tmp_path / "model.onnx")


def test_without_the_package_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    monkeypatch.setattr(importlib, "import_module", _missing)
    with pytest.raises(ArtifactError, match=r"pip install 'slipway\[openvino\]'"):
        openvino.import_openvino()


def _missing(name: str) -> object:
    raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_importing_it_loads_no_telemetry_and_leaves_the_converter_importable() -> None:
    probe = (
        "import sys; from inference.backends.openvino import import_openvino as load; load();"
        "print(*[name for name in sys.modules if 'telemetry' in name or name.startswith('openvino.tools')])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
