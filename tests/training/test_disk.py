"""training/disk.py: whatever writes, a full disk is one sentence; nothing else is taken for one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import optuna
import pytest
import safetensors.torch
import torch

from artifact.errors import ArtifactCorrupt
from tests.training.full_disk import full_disk
from training.disk import disk_errors, is_full_disk
from training.errors import FineTuneFailed, TrainingError

LARGE = np.zeros(50_000, dtype=np.float32)


def by_safetensors(folder: Path) -> None:
    safetensors.torch.save_file({"weights": torch.from_numpy(LARGE)}, folder / "model.safetensors")


def by_torch(folder: Path) -> None:
    torch.save({"weights": torch.from_numpy(LARGE)}, folder / "optimizer.pt")


def by_numpy(folder: Path) -> None:
    np.save(folder / "scores.npy", LARGE)


def by_onnx(folder: Path) -> None:
    onnx.save_tensor(onnx.numpy_helper.from_array(LARGE), folder / "weights.pb")


def by_optuna(folder: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    optuna.create_study(storage=f"sqlite:///{folder / 'study.db'}")


def by_hand(folder: Path) -> None:
    (folder / "page.html").write_bytes(LARGE.tobytes())


@pytest.mark.parametrize("write", [by_safetensors, by_torch, by_numpy, by_onnx, by_optuna, by_hand])
def test_whoever_writes_to_a_full_disk_it_is_one_sentence(tmp_path: Path, write: Callable[[Path], None]) -> None:
    with pytest.raises(FineTuneFailed) as caught, full_disk(), disk_errors("the run", FineTuneFailed):
        write(tmp_path)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.message in (
        "the run: cannot be written: the disk is full",
        "the run: cannot be written: is the disk full?",
        "the run: File too large",
    )
    assert is_full_disk(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"absent/run\.json: No such file or directory$"), disk_errors("the run"):
        (tmp_path / "absent" / "run.json").write_text("{}")


@pytest.mark.parametrize(
    "error", [ValueError("a bad value"), TrainingError("our own"), ArtifactCorrupt("int8: broken")]
)
def test_what_is_not_the_disks_passes_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, disk_errors("the run"):
        raise error
    assert caught.value is error
    assert not is_full_disk(error)
