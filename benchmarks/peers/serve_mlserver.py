"""MLServer: two parallel workers, adaptive batching of up to 8 with at most two milliseconds of waiting for company."""

import json
import os
import sys
from pathlib import Path

from mlserver import MLModel  # type: ignore[import-not-found]
from mlserver.codecs import StringCodec  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput  # type: ignore[import-not-found]

from benchmarks.peers.encoder import Encoder
from benchmarks.peers.ports import free_ports


class Classify(MLModel):  # type: ignore[misc]
    """A custom runtime: a BYTES tensor of texts in, their probabilities out."""

    async def load(self) -> bool:
        """Once in every worker."""
        self._encoder = Encoder()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """One batch."""
        scores = self._encoder.scores(StringCodec.decode_input(payload.inputs[0]))
        flat = [score for row in scores for score in row]
        shape = [len(scores), len(scores[0])]
        output = ResponseOutput(name="scores", datatype="FP32", shape=shape, data=flat)
        return InferenceResponse(model_name=self.name, outputs=[output])


def write_settings(folder: Path, port: int) -> Path:
    """The two files that `mlserver start` reads; the folder."""
    grpc_port, metrics_port = free_ports(2)
    server = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": grpc_port,
        "metrics_port": metrics_port,
        "metrics_dir": str(folder / "metrics"),
        "parallel_workers": 2,
        "debug": False,
    }
    model = {
        "name": "classify",
        "implementation": "benchmarks.peers.serve_mlserver.Classify",
        "max_batch_size": 8,
        "max_batch_time": 0.002,
    }
    folder.mkdir(exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(server), encoding="utf-8")
    (folder / "model-settings.json").write_text(json.dumps(model), encoding="utf-8")
    return folder


if __name__ == "__main__":
    settings = write_settings(Path.cwd() / "mlserver", int(os.environ["PEER_PORT"]))
    start = "from mlserver.cli import main; main()"
    os.execv(sys.executable, [sys.executable, "-c", start, "start", str(settings)])
