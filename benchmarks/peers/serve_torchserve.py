"""TorchServe: two workers, batches of up to 8, at most two milliseconds of waiting for company.

Its documentation sends models that should be fast to onnxruntime, so the custom handler here is the encoder of all
the others. The front end is a Java program.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.peers.encoder import Encoder
from benchmarks.peers.ports import free_ports


class Classify:
    """What TorchServe calls a custom handler."""

    def initialize(self, context: Any) -> None:
        """Once in every worker."""
        self._encoder = Encoder()

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[dict[str, Any]]:
        """One batch."""
        queries = [each["body"] for each in data]
        scores = self._encoder.scores([query["text"] for query in queries])
        return [{"id": query.get("id", ""), "scores": row} for query, row in zip(queries, scores, strict=True)]


def archive(store: Path) -> None:
    """Put this file into the model store as a model's folder."""
    store.mkdir(exist_ok=True)
    words = ["--model-name", "classify", "--version", "1.0", "--handler", __file__, "--export-path", str(store)]
    archiver = [sys.executable, "-m", "model_archiver.model_packaging", "--archive-format", "no-archive", "--force"]
    subprocess.run([*archiver, *words], check=True)


def properties(port: int) -> str:
    """config.properties. The queue holds what the open loop may leave waiting: a full one answers 503."""
    management, metrics, grpc_inference, grpc_management = free_ports(4)
    model = {
        "defaultVersion": True,
        "marName": "classify",
        "minWorkers": 2,
        "maxWorkers": 2,
        "batchSize": 8,
        "maxBatchDelay": 2,
        "responseTimeout": 120,
    }
    found = {
        "inference_address": f"http://127.0.0.1:{port}",
        "management_address": f"http://127.0.0.1:{management}",
        "metrics_address": f"http://127.0.0.1:{metrics}",
        "grpc_inference_address": "127.0.0.1",
        "grpc_management_address": "127.0.0.1",
        "grpc_inference_port": str(grpc_inference),
        "grpc_management_port": str(grpc_management),
        "job_queue_size": "1000",
        "async_logging": "true",
        "disable_system_metrics": "true",
        "disable_token_authorization": "true",
        "load_models": "classify",
        "models": json.dumps({"classify": {"1.0": model}}),
    }
    return "".join(f"{name}={value}\n" for name, value in found.items())


if __name__ == "__main__":
    store, config = Path.cwd() / "torchserve", Path.cwd() / "config.properties"
    archive(store)
    config.write_text(properties(int(os.environ["PEER_PORT"])), encoding="utf-8")
    start = ["--start", "--foreground", "--ncs", "--model-store", str(store), "--ts-config", str(config)]
    # It keeps a process id, sockets and unpacked models in the folder for temporary files: not in everybody's.
    scratch = {"TMPDIR": str(Path.cwd()), "TEMP": str(Path.cwd())}
    os.execve(sys.executable, [sys.executable, "-m", "ts.model_server", *start], {**os.environ, **scratch})
