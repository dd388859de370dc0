"""Small real things the batcher can work with: a task that counts words and a backend whose answers are predictable."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.errors import BackendFailed, BadInput
from inference.tasks.base import Arrays, Prediction, Prepared
from inference.tasks.windows import window_count


class WordTask:
    """An input is words that are numbers; its prediction's score is their sum.

    With `window` an input of more words is read in windows of at most so many, and its score is the mean of theirs.
    """

    def __init__(self, max_input_tokens: int = 16, window: int | None = None) -> None:
        self.max_input_tokens = max_input_tokens
        self._window = window or max_input_tokens

    def check(self, value: object, field: str) -> str:
        """Only strings."""
        if not isinstance(value, str):
            raise BadInput(field, "must be a string")
        return value

    def prepare(self, value: str, *, truncate: bool) -> Prepared:
        """One token a word. The word `explode` breaks the tokenizer; of `nothing` alone nothing is left."""
        words = value.split()
        if words == ["nothing"]:
            return Prepared((), 0, blank=True)
        if "explode" in words:
            raise RuntimeError("tokenizer lost")
        ids = [int(word) for word in words]
        truncated = len(ids) > self.max_input_tokens
        if truncated and not truncate:
            return Prepared((), len(ids), excess=True)
        ids = ids[: self.max_input_tokens]
        return Prepared(ids, len(ids), truncated=truncated, windows=window_count(len(ids), self._window))

    def collate(self, items: Sequence[Prepared]) -> dict[str, NDArray[np.int64]]:
        """Zero-padded ids."""
        longest = max(len(item.ids) for item in items)
        return {"ids": np.array([[*item.ids, *[0] * (longest - len(item.ids))] for item in items], dtype=np.int64)}

    def decode(self, outputs: Arrays) -> list[Prediction | BackendFailed]:
        """A row that is not finite fails alone."""
        return [
            Prediction("sum", float(row), (float(row),)) if np.isfinite(row) else BackendFailed("not finite")
            for row in outputs["sums"]
        ]

    def merge(self, windows: Sequence[Prediction]) -> Prediction:
        """The mean of the windows' scores."""
        score = float(np.mean([each.score for each in windows]))
        return Prediction("sum", score, (score,))


class SumBackend:
    """Sums each row, remembers the shapes it saw, and can be held in flight or told to misbehave."""

    engine = "sum"

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.busy = threading.Event()
        self.fails = False
        self.rows_missing = 0

    def infer(self, inputs: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[Any]]:
        """Sums; the id -1 gives NaN for its row."""
        self.busy.set()
        assert self.gate.wait(timeout=20)
        ids = inputs["ids"]
        self.shapes.append(ids.shape)
        if self.fails:
            raise RuntimeError("device lost: secret detail")
        sums = np.where((ids == -1).any(axis=1), np.nan, ids.sum(axis=1).astype(np.float64))
        return {"sums": sums[: len(sums) - self.rows_missing]}
