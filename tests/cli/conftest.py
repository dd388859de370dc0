"""What the tests of the command share: no settings of the machine, and a repository to read."""

import os
from pathlib import Path

import pytest

from tests.tiny_artifact import publish_tiny


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of ours but those a test sets."""
    for name in [name for name in os.environ if name.startswith("SLIPWAY_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two versions, for commands that only read."""
    root = tmp_path_factory.mktemp("models")
    publish_tiny(root)
    publish_tiny(root)
    return root
