"""The root of the error tree."""

import pytest

from artifact.errors import ArtifactCorrupt, ArtifactError, ArtifactNotFound, SlipwayError


def test_the_message_is_the_error_and_its_text() -> None:
    error = ArtifactCorrupt("model.onnx: sha256 differs from the manifest")
    assert (error.message, str(error)) == (error.args[0], error.message)


@pytest.mark.parametrize(
    ("kind", "status", "code", "exit_status"),
    [
        (SlipwayError, 500, "internal", 1),
        (ArtifactError, 500, "artifact_error", 1),
        (ArtifactNotFound, 404, "not_found", 1),
        (ArtifactCorrupt, 500, "artifact_corrupt", 1),
    ],
)
def test_each_kind_knows_its_statuses(kind: type[SlipwayError], status: int, code: str, exit_status: int) -> None:
    assert (kind.status, kind.code, kind.exit_status) == (status, code, exit_status)
