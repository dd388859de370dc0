"""BentoML: two workers, adaptive batching of up to 8, which learns how long to wait for company.

A batchable endpoint takes lists, so a request is a list of one. Batches are refused that would take longer than
`max_latency_ms`: long enough that none is in the closed loop.
"""

import os
import sys
from typing import Any

import bentoml  # type: ignore[import-not-found]
from pydantic import BaseModel

from benchmarks.peers.encoder import Encoder


class Query(BaseModel):
    """One text, and an id that comes back."""

    id: str = ""
    text: str


@bentoml.service(workers=2, threads=1, logging={"access": {"enabled": False}})
class Classify:
    """One encoder in every worker."""

    def __init__(self) -> None:
        self._encoder = Encoder()

    @bentoml.api(batchable=True, max_batch_size=8, max_latency_ms=10_000)  # type: ignore[untyped-decorator]
    def predict(self, queries: list[Query]) -> list[dict[str, Any]]:
        """One batch."""
        scores = self._encoder.scores([query.text for query in queries])
        return [{"id": query.id, "scores": row} for query, row in zip(queries, scores, strict=True)]


def command(port: str) -> list[str]:
    """What serves this file."""
    words = ["-m", "bentoml", "serve", "benchmarks.peers.serve_bentoml:Classify"]
    return [sys.executable, *words, "--host", "127.0.0.1", "--port", port]


if __name__ == "__main__":
    os.execv(sys.executable, command(os.environ["PEER_PORT"]))
