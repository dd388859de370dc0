"""TorchScript behind the same seam."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from artifact.errors import ArtifactCorrupt, ArtifactError
from inference.backends.torchscript import TorchScriptBackend


class _Sums(torch.nn.Module):
    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return (ids * mask).sum(dim=1, keepdim=True).float()


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "model.ts"
    example = torch.ones(2, 3, dtype=torch.long)
    torch.jit.trace(_Sums(), (example, example)).save(str(path))  # type: ignore[no-untyped-call]
    return path


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_inputs_go_in_by_name_and_the_output_gets_its_name(module: Path) -> None:
    backend = TorchScriptBackend(module, inputs=("ids", "mask"), output="sums")
    ids = np.array([[1, 2, 3, 4]])
    assert backend.infer({"mask": np.array([[1, 1, 1, 0]]), "ids": ids})["sums"].tolist() == [[6.0]]


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_file_that_is_no_module_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.ts").write_bytes(b"not a module")
    with pytest.raises(ArtifactCorrupt, match=r"model\.ts"):
        TorchScriptBackend(tmp_path / "model.ts", inputs=(), output="sums")


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(ArtifactError, match=r"slipway\[torchscript\]"):
        TorchScriptBackend(tmp_path / "model.ts", inputs=(), output="sums")
