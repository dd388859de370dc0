from pathlib import Path

import numpy as np

from artifact.repository import Repository
from benchmarks.floor import IdleBackend, load
from tests.tiny_artifact import publish_tiny


def test_an_idle_backend_answers_with_zeros() -> None:
    outputs = IdleBackend("logits", 3).infer({"input_ids": np.ones((4, 7), dtype=np.int64)})
    assert outputs["logits"].shape == (4, 3)
    assert not outputs["logits"].any()


def test_the_serving_path_runs_around_it(tmp_path: Path) -> None:
    publish_tiny(tmp_path)
    model = load(Repository(tmp_path).open("sentiment"))
    try:
        (prediction,) = model.predict(["a good film"]).predictions
    finally:
        model.close()
    assert prediction.scores == (0.5, 0.5)
