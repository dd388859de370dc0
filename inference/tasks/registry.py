"""Which class serves which task name."""

from pathlib import Path

from tokenizers import Tokenizer

from artifact.errors import ArtifactCorrupt, ArtifactError
from artifact.repository import Artifact
from inference.tasks.base import Task
from inference.tasks.text_classification import TextClassification


def open_task(artifact: Artifact) -> Task:
    """The task an artifact asks for. Raises ArtifactError for an unknown one, ArtifactCorrupt for a bad tokenizer."""
    manifest = artifact.manifest
    if manifest.task != "text-classification":
        raise ArtifactError(f"{artifact.path}: this version of slipway does not know the task {manifest.task!r}")
    return TextClassification(manifest, _open_tokenizer(artifact.path / manifest.preprocessing.tokenizer))


def _open_tokenizer(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # tokenizers raises bare Exception
        raise ArtifactCorrupt(f"{path}: not a tokenizer this version of tokenizers can read") from error
