"""OpenVINO on the CPU: fp32, or bf16 computed from the same fp32 file. Imported when asked for, and nowhere else.

Its package reports its own import to a statistics server, from the model converter that `openvino/__init__.py` loads
"if present". Slipway converts nothing, so the converter is kept out: nothing is sent, and the import takes 0.07
instead of 0.41 seconds.
"""

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from artifact.errors import ArtifactCorrupt, ArtifactError

_CONVERTER: Final = "openvino.tools.ovc"
# Compiled kernels kept per stream, by shape. The default of 5000 lets memory grow with every new length.
_KERNELS_KEPT: Final = 64
_HINTS: Final = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoBackend:
    """One compiled model with a stream per worker; each execution borrows one of its infer requests.

    One model with streams rather than several models: OpenVINO pins each model's threads to cores, and pins two
    models to the same ones. Pinning is off besides, because a container's cores are not ours to name.
    """

    def __init__(
        self, path: Path, *, precision: Literal["fp32", "bf16"] = "fp32", workers: int = 1, threads: int = 1
    ) -> None:
        self.engine = "openvino" if precision == "fp32" else f"openvino-{precision}"
        core = import_openvino().Core()
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "NUM_STREAMS": str(workers),
            "INFERENCE_NUM_THREADS": str(workers * threads),
            "ENABLE_CPU_PINNING": "NO",
            "CPU_RUNTIME_CACHE_CAPACITY": str(_KERNELS_KEPT),
        }
        try:
            self._compiled = core.compile_model(str(path), "CPU", settings)
        except RuntimeError as error:
            raise ArtifactCorrupt(f"{path}: OpenVINO cannot load this model") from error
        self._inputs = [entry.get_any_name() for entry in self._compiled.inputs]
        self._outputs = [(entry.get_any_name(), place) for place, entry in enumerate(self._compiled.outputs)]
        # A list is a stack whose push and pop are atomic: requests in use are in nobody else's hands.
        self._idle: list[Any] = []

    def infer(self, inputs: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[Any]]:
        """Outputs by name, copied: the request's own memory is written by its next execution."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        request.infer({name: inputs[name] for name in self._inputs}, share_inputs=True)
        outputs = {name: np.array(request.get_output_tensor(place).data) for name, place in self._outputs}
        # Not reached after an exception: a request that failed is not used again.
        self._idle.append(request)
        return outputs


def import_openvino() -> Any:
    """The package, without its converter and so without telemetry. Raises ArtifactError when it is not installed."""
    if "openvino" in sys.modules:
        return sys.modules["openvino"]
    # None makes the import raise ImportError, for which openvino's __init__ has an `except`. Lifted afterwards, for
    # whoever wants to convert in this process.
    modules: dict[str, Any] = sys.modules
    modules.setdefault(_CONVERTER, None)
    try:
        return importlib.import_module("openvino")
    except ModuleNotFoundError as error:
        raise ArtifactError("this engine needs openvino: pip install 'slipway[openvino]'") from error
    finally:
        if modules[_CONVERTER] is None:
            del modules[_CONVERTER]
