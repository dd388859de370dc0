"""What the training tests share: a tiny encoder, a tiny model that is served, and a bar that draws nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.progress import Progress

from artifact.repository import Repository
from inference.model import Model
from tests.tiny_artifact import publish_tiny
from tests.training import tiny
from training.prepare import Prepared, prepare
from training.recipe import Recipe
from training.sources import EncoderFolder


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices gain nothing from threads, and spinning ones cost the rest of the machine dearly."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> EncoderFolder:
    """A tiny random encoder in the hub's layout."""
    return tiny.encoder_folder(tmp_path_factory.mktemp("encoder") / "tiny")


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """The tiny recipe as it is."""
    return tiny.recipe()


@pytest.fixture(scope="module")
def prepared(recipe: Recipe) -> Prepared:
    """Its rows."""
    with Progress(disable=True) as bars:
        return prepare(tiny.table(), recipe, bars)


@pytest.fixture
def progress() -> Iterator[Progress]:
    """A progress display that is switched off."""
    with Progress(disable=True) as bars:
        yield bars


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """An empty cache folder."""
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """A tiny published model, through the code that serves it."""
    root = tmp_path_factory.mktemp("models")
    publish_tiny(root)
    opened = Model.load(Repository(root).open("sentiment", None))
    yield opened
    opened.close()
