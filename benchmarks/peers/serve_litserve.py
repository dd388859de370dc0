"""LitServe: two workers, batches of up to 8, the fast queue."""

import os
from typing import Any

import litserve as ls  # type: ignore[import-not-found]

from benchmarks.peers.encoder import Encoder


class Classify(ls.LitAPI):  # type: ignore[misc]
    """The five hooks of LitServe; `unbatch` is its default."""

    def setup(self, device: str) -> None:
        """Once in every worker."""
        self._encoder = Encoder()

    def decode_request(self, request: dict[str, str]) -> tuple[str, str]:
        """Id and text."""
        return request.get("id", ""), request["text"]

    def batch(self, inputs: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """As they are."""
        return inputs

    def predict(self, queries: list[tuple[str, str]]) -> list[dict[str, Any]]:
        """One batch."""
        scores = self._encoder.scores([text for _, text in queries])
        return [{"id": key, "scores": row} for (key, _), row in zip(queries, scores, strict=True)]

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """As they are."""
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """As it is."""
        return output


if __name__ == "__main__":
    server = ls.LitServer(
        Classify(max_batch_size=8, batch_timeout=0.002), accelerator="cpu", workers_per_device=2, fast_queue=True
    )
    server.run(host="127.0.0.1", port=int(os.environ["PEER_PORT"]), generate_client_file=False, log_level="warning")
