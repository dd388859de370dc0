"""Which adapter opens which format."""

from pathlib import Path

import pytest

from artifact.errors import ArtifactCorrupt
from artifact.manifest import Variant
from artifact.repository import open_artifact
from inference.backends.onnx import OnnxBackend
from inference.backends.registry import open_backend
from tests.tiny_artifact import publish_tiny


def test_onnx_opens_with_onnxruntime(tmp_path: Path) -> None:
    artifact = open_artifact(publish_tiny(tmp_path)[0])
    backend = open_backend(artifact, artifact.manifest.variants[0])
    assert isinstance(backend, OnnxBackend)
    assert backend.engine == "onnxruntime"


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript_opens_with_torch(tmp_path: Path) -> None:
    artifact = open_artifact(publish_tiny(tmp_path)[0])
    variant = Variant(name="torchscript", file="model.onnx", format="torchscript", precision="fp32")
    with pytest.raises(ArtifactCorrupt, match="torch cannot load this model"):
        open_backend(artifact, variant)
