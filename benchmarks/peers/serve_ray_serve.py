"""Ray Serve: two replicas behind HAProxy, throughput-optimized (both by catalogue.py), batches of up to 8."""

import os
import tempfile
import threading
from typing import Any, Final

import ray  # type: ignore[import-not-found]
from ray import serve
from starlette.requests import Request

from benchmarks.peers.encoder import Encoder

_OBJECT_STORE_BYTES: Final = 100_000_000


@serve.deployment(
    num_replicas=2,
    max_ongoing_requests=512,
    ray_actor_options={"num_cpus": 1},
    logging_config={"enable_access_log": False, "log_level": "WARNING"},
)
class Classify:
    """One encoder in every replica."""

    def __init__(self) -> None:
        self._encoder = Encoder()

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.002)  # type: ignore[untyped-decorator]
    async def classify(self, texts: list[str]) -> list[list[float]]:
        """One batch."""
        return self._encoder.scores(texts)

    async def __call__(self, request: Request) -> dict[str, Any]:
        """One request."""
        query = await request.json()
        return {"id": query.get("id", ""), "scores": await self.classify(query["text"])}


def run(folder: str, port: int) -> None:
    """Serve until interrupted. Sockets lie below `folder`, so its path has to be short."""
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        _temp_dir=folder,
    )
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(Classify.bind(), route_prefix="/predict")  # type: ignore[attr-defined]
        threading.Event().wait()
    finally:
        ray.shutdown()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as scratch:
        run(scratch, int(os.environ["PEER_PORT"]))
