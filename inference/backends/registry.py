"""Which adapter opens which format."""

from artifact.manifest import Variant
from artifact.repository import Artifact
from inference.backends.base import Backend
from inference.backends.onnx import OnnxBackend
from inference.backends.torchscript import TorchScriptBackend


def open_backend(artifact: Artifact, variant: Variant, *, threads: int = 1) -> Backend:
    """Load one variant. Raises ArtifactCorrupt, or ArtifactError when its engine is not installed."""
    path = artifact.path / variant.file
    if variant.format == "onnx":
        return OnnxBackend(path, threads=threads)
    manifest = artifact.manifest
    names = tuple(spec.name for spec in manifest.inputs)
    return TorchScriptBackend(path, inputs=names, output=manifest.outputs[0].name, threads=threads)
