"""Triton through PyTriton: two instances, dynamic batches of up to 8, at most two milliseconds of waiting."""

import os
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pytriton.decorators import batch  # type: ignore[import-not-found]
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor  # type: ignore[import-not-found]
from pytriton.triton import Triton, TritonConfig  # type: ignore[import-not-found]

from benchmarks.peers.encoder import Encoder


def instance() -> Callable[..., dict[str, Any]]:
    """An inference callable with an encoder of its own."""
    encoder = Encoder()

    @batch  # type: ignore[untyped-decorator]
    def infer(text: "np.ndarray[Any, Any]") -> dict[str, Any]:
        scores = encoder.scores([each.decode() for each in text[:, 0]])
        return {"scores": np.array(scores, dtype=np.float32)}

    found: Callable[..., dict[str, Any]] = infer
    return found


def use_own_python() -> None:
    """Triton starts a Python of its own through libpython: this one's, or the system's meets our standard library."""
    places = (sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH"))
    os.environ["LD_LIBRARY_PATH"] = ":".join(place for place in places if place)


if __name__ == "__main__":
    use_own_python()
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=int(os.environ["PEER_PORT"]),
        allow_grpc=False,
        allow_metrics=False,
        log_verbose=0,
    )
    with Triton(config=config, workspace=Path.cwd() / "triton") as triton:
        triton.bind(
            model_name="classify",
            infer_func=[instance(), instance()],
            inputs=[Tensor(name="text", dtype=bytes, shape=(1,))],
            outputs=[Tensor(name="scores", dtype=np.float32, shape=(-1,))],
            config=ModelConfig(
                max_batch_size=8,
                batcher=DynamicBatcher(max_queue_delay_microseconds=2000),
            ),
        )
        triton.serve()
