"""TorchScript on the CPU. torch is imported here, when a model of that format is opened, and nowhere else."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact.errors import ArtifactCorrupt, ArtifactError


class TorchScriptBackend:
    """A traced module whose arguments are the manifest's inputs, in order, and whose result is one tensor."""

    engine = "torchscript"

    def __init__(self, path: Path, *, inputs: tuple[str, ...], output: str, threads: int = 1) -> None:
        try:
            self._torch: Any = importlib.import_module("torch")
        except ModuleNotFoundError as error:
            raise ArtifactError("this variant needs torch: pip install 'slipway[torchscript]'") from error
        self._torch.set_num_threads(threads)
        try:
            self._module = self._torch.jit.load(str(path), map_location="cpu").eval()
        except RuntimeError as error:
            raise ArtifactCorrupt(f"{path}: torch cannot load this model") from error
        self._inputs = inputs
        self._output = output

    def infer(self, inputs: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[Any]]:
        """The module's one output, under the manifest's name for it."""
        with self._torch.inference_mode():
            result = self._module(*(self._torch.from_numpy(inputs[name]) for name in self._inputs))
        return {self._output: result.numpy()}
