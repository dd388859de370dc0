"""The root of every error Slipway raises on purpose, and the branch that concerns artifacts.

    SlipwayError
    └── ArtifactError            an artifact or a repository cannot be read, trusted or written
        ├── ArtifactNotFound     no such model, version or alias
        └── ArtifactCorrupt      contents and manifest disagree, or the manifest cannot be read

`inference/errors.py`, `service/errors.py` and `training/errors.py` grow their own branches from the same root;
docs/errors.md shows the whole tree and a test keeps it true.
"""

from typing import ClassVar


class SlipwayError(Exception):
    """Anything Slipway refuses or fails at knowingly. Its message is ours and never holds the caller's data."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    exit_status: ClassVar[int] = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ArtifactError(SlipwayError):
    """An artifact or a model repository cannot be read, trusted or written."""

    code = "artifact_error"


class ArtifactNotFound(ArtifactError):
    """The repository holds no such model, version or alias."""

    status, code = 404, "not_found"


class ArtifactCorrupt(ArtifactError):
    """The contents are not what the manifest promises. The message names the file and the reason."""

    code = "artifact_corrupt"
