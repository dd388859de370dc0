"""The HTTP floor: the real service around a backend that does no work, as a process of its own.

What it costs is what a request costs beside the model: HTTP, validation, tokenizing, batching, metrics, logs.
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from numpy.typing import NDArray

from artifact.repository import Artifact
from inference.model import Model
from service import logs
from service.config import Settings
from service.door import OwnDoor, listen
from service.server import Server


class IdleBackend:
    """Answers at once: every logit is zero."""

    engine = "none"

    def __init__(self, output: str, labels: int) -> None:
        self._output = output
        self._labels = labels

    def infer(self, inputs: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[Any]]:
        """Zeros of shape (batch, labels)."""
        rows = next(iter(inputs.values())).shape[0]
        return {self._output: np.zeros((rows, self._labels), dtype=np.float32)}


def load(artifact: Artifact) -> Model:
    """The serving path without the engine, and so without the golden check."""
    manifest = artifact.manifest
    backend = IdleBackend(manifest.outputs[0].name, len(manifest.labels))
    return Model.assemble(artifact, manifest.variants[0], backend)


async def _run(server: Server) -> int:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, server.stop, number)
    return await server.run()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal."""
    parser = argparse.ArgumentParser(description="The service around a backend that does no work.")
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args(arguments)
    settings = Settings(repository=options.repository, port=options.port, default_model=options.model)
    logs.configure(settings.log_level, settings.log_format)
    with listen(settings.host, settings.port) as listener, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(Server(settings, OwnDoor(listener), load)))


if __name__ == "__main__":
    sys.exit(main())
