"""The seam between the batcher and an engine: one method."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Backend(Protocol):
    """One loaded variant. Synchronous, and safe to call from several worker threads at once."""

    engine: str

    def infer(self, inputs: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[Any]]:
        """Outputs by name, row i for input i. Raises what the engine raises: the batcher answers for it."""
        ...
