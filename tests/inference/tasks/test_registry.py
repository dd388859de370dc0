"""Opening the task an artifact asks for."""

from pathlib import Path

import pytest

from artifact.errors import ArtifactCorrupt, ArtifactError
from artifact.repository import Artifact, open_artifact
from inference.tasks.registry import open_task
from tests.tiny_artifact import publish_tiny


def test_an_unknown_task_is_named(tmp_path: Path) -> None:
    opened = open_artifact(publish_tiny(tmp_path)[0])
    other = Artifact(opened.path, opened.manifest.model_copy(update={"task": "telepathy"}), opened.digest)
    with pytest.raises(ArtifactError, match="telepathy"):
        open_task(other)


def test_a_tokenizer_that_does_not_parse_is_named(tmp_path: Path) -> None:
    path, _ = publish_tiny(tmp_path)
    (path / "tokenizer.json").write_text("{}")
    with pytest.raises(ArtifactCorrupt, match=r"tokenizer\.json"):
        open_task(open_artifact(path, verify=False))
