"""Texts as rows of a model in training: whole, or in the windows that serving reads them in.

Where windows lie is `inference/tasks/windows.py`; what the service averages after decoding is averaged here.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final

import numpy as np
import numpy.typing as npt
import transformers

from inference.tasks.windows import Span, windows
from training.recipe import TrainingSection

Row = dict[str, list[int]]

_MASK: Final = "special_tokens_mask"


def encode(tokenizer: transformers.PreTrainedTokenizerFast, texts: Sequence[str], max_tokens: int) -> list[Row]:
    """Token ids and what goes with them, one text each, cut at `max_tokens`."""
    return list(_plain(_encoded(tokenizer, texts, max_tokens)))


def windowed(
    tokenizer: transformers.PreTrainedTokenizerFast, texts: Sequence[str], max_tokens: int, window_tokens: int | None
) -> tuple[list[Row], npt.NDArray[np.int64]]:
    """The rows that texts are read in, each cut at `max_tokens` first, and the number of the text each is of.

    A row per text without `window_tokens`, else windows of at most so many tokens, special ones included, in order.
    """
    rows = [
        list(_plain([row])) if window_tokens is None else list(_windows(row, window_tokens))
        for row in _encoded(tokenizer, texts, max_tokens)
    ]
    owners = np.repeat(np.arange(len(rows)), [len(each) for each in rows])
    return list(chain.from_iterable(rows)), owners


def averaged(logits: npt.NDArray[np.floating], owners: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """The mean over each text's rows, summed in float64: shape (texts, labels) from (rows, labels)."""
    sums = np.zeros((int(owners.max(initial=-1)) + 1, logits.shape[1]))
    np.add.at(sums, owners, logits.astype(np.float64))
    return np.asarray(sums / np.bincount(owners)[:, None], dtype=np.float32)


def training_turns(
    tokenizer: transformers.PreTrainedTokenizerFast,
    texts: Sequence[str],
    section: TrainingSection,
    positions: int | None = None,
) -> list[list[Row]]:
    """What is learnt from each text, a row in each epoch: the text itself, cut at `max_tokens` and at `positions`.

    With `window_tokens` its windows take turns. Which comes first follows from the text and the seed alone.
    """
    if section.window_tokens is None:
        most = section.max_tokens if positions is None else min(section.max_tokens, positions)
        return [[row] for row in encode(tokenizer, texts, most)]
    encoded = _encoded(tokenizer, texts, section.max_text_tokens)
    return [_turned(list(_windows(row, section.window_tokens)), section.seed) for row in encoded]


def training_rows(
    tokenizer: transformers.PreTrainedTokenizerFast, texts: Sequence[str], section: TrainingSection
) -> list[Row]:
    """A row for each text, as the first epoch would have it."""
    return [turns[0] for turns in training_turns(tokenizer, texts, section)]


def _turned(rows: list[Row], seed: int) -> list[Row]:
    """`rows` from one of them on, and round to it again."""
    if len(rows) == 1:
        return rows
    ids = (token for row in rows for token in row["input_ids"])
    digest = hashlib.sha256(f"{seed} {' '.join(map(str, ids))}".encode()).digest()
    first = int.from_bytes(digest[:8]) % len(rows)
    return rows[first:] + rows[:first]


def _encoded(tokenizer: transformers.PreTrainedTokenizerFast, texts: Sequence[str], max_tokens: int) -> list[Row]:
    """Every text by itself, with a mask of the special tokens around it."""
    encoded = tokenizer(list(texts), truncation=True, max_length=max_tokens, return_special_tokens_mask=True)
    return [{name: values[number] for name, values in encoded.items()} for number in range(len(texts))]


def _plain(rows: Sequence[Row]) -> Iterator[Row]:
    """Rows as a model takes them."""
    return ({name: values for name, values in row.items() if name != _MASK} for row in rows)


def _windows(row: Row, window_tokens: int) -> Iterator[Row]:
    """The windows of one text, in order; itself where one holds it."""
    if len(row[_MASK]) <= window_tokens:
        return _plain([row])
    start, end = _own(row)
    found = windows(end - start, window_tokens - sum(row[_MASK]))
    return _plain([_cut(row, start + first, start + last) for first, last in found])


def _own(row: Row) -> Span:
    """Where a text's own tokens begin and end."""
    mask = row[_MASK]
    if 0 not in mask:
        return 0, 0
    return mask.index(0), len(mask) - mask[::-1].index(0)


def _cut(row: Row, first: int, last: int) -> Row:
    """The row with only the own tokens from `first` to `last`, within its special ones."""
    start, end = _own(row)
    return {name: [*values[:start], *values[first:last], *values[end:]] for name, values in row.items()}
