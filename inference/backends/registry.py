"""Which adapter runs which format, and which engines are installed here."""

import importlib.metadata
from collections.abc import Mapping
from typing import Final

from artifact.errors import ArtifactError
from artifact.manifest import Variant
from artifact.repository import Artifact
from inference.backends.base import Backend
from inference.backends.onnx import OnnxBackend
from inference.backends.openvino import OpenVinoBackend
from inference.backends.torchscript import TorchScriptBackend

# By format, the default engine first. `openvino-bf16` computes in bfloat16 from an fp32 file.
ENGINES: Final[Mapping[str, tuple[str, ...]]] = {
    "onnx": ("onnxruntime", "openvino", "openvino-bf16"),
    "torchscript": ("torchscript",),
}
_PACKAGES: Final = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "openvino-bf16": "openvino",
    "torchscript": "torch",
}


def open_backend(
    artifact: Artifact, variant: Variant, *, engine: str | None = None, workers: int = 1, threads: int = 1
) -> Backend:
    """Load one variant on `engine`, or on the default one of its format, to be used by `workers` threads at once.

    `threads` compute each execution. Raises ArtifactCorrupt for a file the engine cannot load, ArtifactError when the
    engine is not installed or does not run this format.
    """
    known = ENGINES[variant.format]
    engine = engine or known[0]
    if engine not in known:
        raise ArtifactError(f"variant {variant.name} does not run on {engine!r}, only on {' or '.join(known)}")
    path = artifact.path / variant.file
    if engine == "onnxruntime":
        return OnnxBackend(path, threads=threads)
    if engine == "torchscript":
        manifest = artifact.manifest
        names = tuple(spec.name for spec in manifest.inputs)
        return TorchScriptBackend(path, inputs=names, output=manifest.outputs[0].name, threads=threads)
    return OpenVinoBackend(
        path, precision="bf16" if engine == "openvino-bf16" else "fp32", workers=workers, threads=threads
    )


def installed_engines() -> dict[str, str]:
    """Name and version of every engine that can be imported here, without importing any."""
    found = {}
    for engine, package in _PACKAGES.items():
        try:
            found[engine] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
