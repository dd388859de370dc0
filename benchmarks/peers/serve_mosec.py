"""mosec: two worker processes, dynamic batches of up to 8, at most a millisecond of waiting for company."""

from typing import Any

from mosec import Server, Worker  # type: ignore[import-not-found]

from benchmarks.peers.encoder import Encoder


class Classify(Worker):  # type: ignore[misc]
    """JSON in and out, which is what mosec does unless told otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self._encoder = Encoder()

    def forward(self, data: list[dict[str, str]]) -> list[dict[str, Any]]:
        """One batch."""
        scores = self._encoder.scores([query["text"] for query in data])
        return [{"id": query.get("id", ""), "scores": row} for query, row in zip(data, scores, strict=True)]


if __name__ == "__main__":
    server = Server()
    server.append_worker(Classify, num=2, max_batch_size=8, max_wait_time=1)
    server.run()
