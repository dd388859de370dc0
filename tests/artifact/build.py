"""A small artifact to publish, read and damage. It is well-formed, but no engine could load its model."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from artifact.manifest import GateResult, Golden, GoldenInput, Limits, Manifest, Provenance, TensorSpec, Variant
from artifact.publish import publish, staging
from artifact.repository import Repository

FILES = {"model.onnx": b"not really a graph", "tokenizer.json": b"{}", "MODEL_CARD.md": b"# toy\n"}


def draft(**changes: Any) -> Manifest:
    """What training hands to `publish`, with some fields changed."""
    fields: dict[str, Any] = {
        "name": "toy",
        "version": 1,
        "task": "text-classification",
        "inputs": (TensorSpec(name="input_ids", dtype="int64", shape=("batch", "sequence")),),
        "outputs": (TensorSpec(name="logits", dtype="float32", shape=("batch", 2)),),
        "labels": ("negative", "positive"),
        "limits": Limits(max_input_tokens=8),
        "variants": (Variant(name="fp32", file="model.onnx", format="onnx", precision="fp32"),),
        "provenance": Provenance(created=datetime(2026, 1, 2, tzinfo=UTC), recipe={}, data_fingerprint="none", seed=0),
        "gate": GateResult(passed=True, test_rows=0),
    }
    return Manifest(**(fields | changes))


def fill(folder: Path) -> Path:
    """Put a whole artifact's files, all but the manifest, into `folder`."""
    golden = Golden(
        inputs=(GoldenInput(input="fine", label="positive", scores=(0.25, 0.75)),), tolerance={"fp32": 0.001}
    )
    for name, content in (FILES | {"golden.json": golden.model_dump_json().encode()}).items():
        (folder / name).write_bytes(content)
    return folder


def publish_toy(root: Path, *, promote: bool = False, **changes: Any) -> tuple[Path, Manifest]:
    """Publish the next version of the toy model in `root`."""
    with staging(root) as folder:
        return publish(fill(folder), root, draft(**changes), promote=promote)


def toy_repository(root: Path, *, versions: int = 1) -> Repository:
    """A repository that holds so many versions of the toy model."""
    for _ in range(versions):
        publish_toy(root)
    return Repository(root)
