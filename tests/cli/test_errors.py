"""cli/errors.py: a library that is not installed."""

import pytest

from cli.errors import WrongUsage, needs
from tests.cli.command import without


def test_train_says_what_to_install_when_the_libraries_are_missing() -> None:
    done = without("torch,transformers,datasets,sklearn,onnx", "train", "sentiment")
    assert done.returncode == 2
    assert done.stderr.decode().count("\n") == 1
    assert done.stderr.endswith(b"pip install 'slipway[train]'\n")


def test_the_library_is_named_and_not_the_part_of_it_that_was_wanted() -> None:
    with pytest.raises(WrongUsage, match=r"slipway tune needs nowhere, .*'slipway\[train\]'"), needs("tune", "train"):
        raise ModuleNotFoundError("No module named 'nowhere.inside'", name="nowhere.inside")
