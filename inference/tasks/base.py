"""What every task provides: JSON value to model inputs on the way in, model outputs to a prediction on the way out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from inference.errors import BackendFailed

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Prepared:
    """One input, ready to be collated. `tokens` is what it costs and, unless truncated, what it had.

    A text of several `windows` has the ids of one after the other, each within special tokens of its own, and is
    collated by `windows.rows_of` of it; its `tokens` are those of the text, within one pair.

    `excess` says that the input had more tokens than the model accepts and nobody allowed truncation, `blank` that
    cleaning left nothing of it.
    `unknown` of the tokens stand for text that the tokenizer's vocabulary does not cover.
    """

    ids: Sequence[int]
    tokens: int
    truncated: bool = False
    excess: bool = False
    blank: bool = False
    unknown: int = 0
    windows: int = 1


@dataclass(frozen=True, slots=True)
class Prediction:
    """The winning label, its probability, and every probability in label order."""

    label: str
    score: float
    scores: tuple[float, ...]


class Task(Protocol):
    """Pure functions around one kind of model. Safe to call from several threads at once."""

    max_input_tokens: int

    def check(self, value: object, field: str) -> str:
        """The value, if it is an input of this task. Raises BadInput naming `field`."""
        ...

    def prepare(self, value: str, *, truncate: bool) -> Prepared:
        """Turn a checked value into model inputs and count its tokens."""
        ...

    def collate(self, items: Sequence[Prepared]) -> dict[str, NDArray[np.int64]]:
        """Stack inputs into arrays of shape (batch, longest), padded at the end."""
        ...

    def decode(self, outputs: Arrays) -> list[Prediction | BackendFailed]:
        """One outcome a row, in order: a bad row is that row's failure only.

        Raises BackendFailed when the outputs as a whole are not what the task expects.
        """
        ...

    def merge(self, windows: Sequence[Prediction]) -> Prediction:
        """The prediction of a text from those of its windows, in the order they stand in it."""
        ...
