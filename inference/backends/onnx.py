"""ONNX Runtime on the CPU."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from artifact.errors import ArtifactCorrupt


class OnnxBackend:
    """One session, shared by every worker: each `run` computes on the caller's thread and `threads - 1` helpers."""

    engine = "onnxruntime"

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        # One plan for memory is kept per shape of input, and text has hundreds: 11 MB for no speed (docs/log.md).
        options.enable_mem_pattern = False
        # A spinning helper steals the core another worker computes on, and burns a container's quota while idle.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exception classes are private
            raise ArtifactCorrupt(f"{path}: onnxruntime cannot load this model") from error
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._inputs = frozenset(entry.name for entry in self._session.get_inputs())

    def infer(self, inputs: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[Any]]:
        """Outputs by name. Inputs the graph does not have are left out."""
        feed = {name: array for name, array in inputs.items() if name in self._inputs}
        return dict(zip(self._outputs, self._session.run(self._outputs, feed), strict=True))
