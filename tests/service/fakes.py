"""Small real things to test the service with: a backend with a gate, and the whole server on a thread."""

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvloop
from numpy.typing import NDArray

from artifact.repository import Artifact
from inference.model import Model, Options
from inference.policy import Limits
from service.config import Settings
from service.door import OwnDoor, listen
from service.registry import Load
from service.server import Server, loader

PATIENCE_SECONDS = 10.0


class GatedBackend:
    """Logits that depend on each row's own ids; holds batches while `gate` is clear, remembers how many rows came."""

    engine = "fake"

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.batches: list[int] = []
        self.failing = False

    def infer(self, inputs: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[Any]]:
        """Shape (batch, 2)."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        self.batches.append(len(ids))
        self.entered.set()
        self.gate.wait(PATIENCE_SECONDS)
        if self.failing:
            raise RuntimeError("device lost: secret detail")
        total = (ids * mask).sum(axis=1).astype(np.float32)
        return {"logits": np.stack([total / 100, -total / 100], axis=1)}


def loading(backend: GatedBackend, **limits: int) -> Load:
    """A loader that puts `backend` behind every artifact, with one worker."""

    def load(artifact: Artifact) -> Model:
        options = Options(limits=Limits(**limits), workers=1)
        return Model.assemble(artifact, artifact.manifest.variants[0], backend, options=options)

    return load


@dataclass
class Running:
    """A server on its own thread and loop, in this process."""

    url: str
    port: int
    server: Server
    loop: asyncio.AbstractEventLoop
    client: httpx.Client
    status: list[int]
    stopped: bool = False

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Deliver a signal, as the loop would."""
        self.stopped = True
        self.loop.call_soon_threadsafe(self.server.stop, number)

    def predict(self, inputs: object, **more: object) -> httpx.Response:
        """POST /predict."""
        return self.client.post("/predict", json={"inputs": inputs, **more})

    def wait_until(self, status: str) -> None:
        """Block until /health says `status`."""
        for _ in range(500):
            if self.client.get("/health").json()["status"] == status:
                return
            threading.Event().wait(0.02)
        raise AssertionError(f"never became {status}: {self.client.get('/health').text}")


@contextmanager
def running(
    repository: Path,
    load: Load | None = None,
    *,
    wait_for: str = "ready",
    ends_with: int = 0,
    shared: Path | None = None,
    **more: Any,
) -> Iterator[Running]:
    """Serve `repository` until the block ends; the server then drains and ends with `ends_with`."""
    settings = Settings(repository=repository, port=0, **{"log_level": "error", **more})
    listener = listen(settings.host, settings.port)
    port = listener.getsockname()[1]
    started: list[tuple[Server, asyncio.AbstractEventLoop]] = []
    up = threading.Event()
    status: list[int] = []

    async def main() -> None:
        server = Server(settings, OwnDoor(listener), load or loader(settings), shared=shared)
        started.append((server, asyncio.get_running_loop()))
        up.set()
        status.append(await server.run())

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())

    thread = threading.Thread(target=run)
    thread.start()
    up.wait(PATIENCE_SECONDS)
    server, loop = started[0]
    url = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS, trust_env=False) as client:
        service = Running(url, port, server, loop, client, status)
        try:
            service.wait_until(wait_for)
            yield service
        finally:
            client.close()
            if thread.is_alive() and not service.stopped:
                service.stop()
            thread.join(PATIENCE_SECONDS)
            listener.close()
    assert not thread.is_alive(), "the server did not drain"
    assert status == [ends_with]


def until(condition: Callable[[], bool]) -> None:
    """Block until it holds."""
    for _ in range(1000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never came to that")


def accepts(port: int) -> bool:
    """Whether something on loopback takes connections there."""
    try:
        socket.create_connection(("127.0.0.1", port), 0.05).close()
    except OSError:
        return False
    return True
