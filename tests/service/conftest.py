"""A published repository and a running service, shared by the tests that only ask questions."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from artifact.repository import Repository
from tests.service.fakes import Running, running
from tests.tiny_artifact import publish_tiny


@pytest.fixture(scope="session", autouse=True)
def _quiet() -> None:
    """Keep servers that run inside the tests from printing their log lines."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Let a test configure logging, and put it back."""
    root = logging.getLogger()
    before, level, configured = root.handlers[:], root.level, structlog.get_config()
    uvicorn_level = logging.getLogger("uvicorn").level
    yield
    root.handlers, root.level = before, level
    logging.getLogger("uvicorn").setLevel(uvicorn_level)
    structlog.configure(**configured)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of one's own with `sentiment` version 1."""
    root = tmp_path / "models"
    publish_tiny(root)
    return root


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The real server over the real tiny model: versions 1 (production), 2 (canary)."""
    root = tmp_path_factory.mktemp("served") / "models"
    publish_tiny(root)
    publish_tiny(root)
    Repository(root).set_alias("sentiment", "canary", 2)
    with running(root, header_timeout_seconds=1.0, body_timeout_seconds=1.5, max_body_bytes=200_000) as found:
        yield found
