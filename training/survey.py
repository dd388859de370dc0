"""One pass over all rows: what each text looks like, how long it is, and a sample to look at more closely."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from tokenizers import Tokenizer

from inference.tasks.pii import count_pii
from training.data import Row
from training.errors import SourceUnavailable
from training.page import histogram
from training.prepare import Cleaning
from training.recipe import Recipe
from training.sources import EncoderFolder
from training.texts import flaws, script_of

SAMPLE_ROWS: Final = 50_000
_TOKENIZED_AT_ONCE: Final = 1000
_QUANTILES: Final = {"p1": 1, "p50": 50, "p90": 90, "p95": 95, "p99": 99, "max": 100}
# So many texts of exactly the greatest length are no accident.
_SAME_LENGTH_ROWS: Final = 10
_SAME_LENGTH_SHARE: Final = 0.005


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of the cleaned texts, special ones included. `over_limit` of them are more than a row in training."""

    encoder: str
    quantiles: dict[str, int]
    bars: list[tuple[float, float, float]]
    limit_tokens: int
    over_limit: int


@dataclass(frozen=True, slots=True)
class Survey:
    """Rows by label, by flaw (training/texts.py), by script; finds of personal data by kind, in `personal_rows` rows.

    `first_flaws` says of each flaw which row has it first.
    """

    labels: dict[str, int]
    unlabelled: int
    lengths: Lengths
    flaws: dict[str, int]
    first_flaws: dict[str, str]
    personal: dict[str, int]
    personal_rows: int
    scripts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Sampled:
    """A row of the sample: its number, from 0, its cleaned text, its label."""

    number: int
    text: str
    label: int


class Surveyor:
    """Sees row after row, in one go and in little memory."""

    def __init__(self, recipe: Recipe, rows: int, tokenizer: Tokenizer) -> None:
        self._recipe = recipe
        self._clean = Cleaning(recipe.prepare)
        self._tokenizer = tokenizer
        self._share = SAMPLE_ROWS / max(1, rows)
        self._labels: Counter[int | None] = Counter()
        self._flaws: Counter[str] = Counter()
        self._first_flaws: dict[str, str] = {}
        self._personal: Counter[str] = Counter()
        self._personal_rows = 0
        self._scripts: Counter[str] = Counter()
        self._characters: Counter[int] = Counter()
        self._waiting: list[str] = []
        self._tokens: list[np.ndarray[tuple[int], np.dtype[np.int32]]] = []
        self._sample: dict[bytes, Sampled] = {}

    def see(self, number: int, row: Row) -> None:
        """Look at one row; `number` counts from 0."""
        self._labels[row.label] += 1
        self._characters[len(row.text)] += 1
        for flaw in flaws(row.text):
            self._flaws[flaw] += 1
            self._first_flaws.setdefault(flaw, _place(row))
        if personal := count_pii(row.text):
            self._personal += personal
            self._personal_rows += 1
        if text := self._clean(row.text):
            self._look_closer(number, text, row.label)

    def _look_closer(self, number: int, text: str, label: int | None) -> None:
        self._scripts[script_of(text)] += 1
        self._waiting.append(text)
        if len(self._waiting) == _TOKENIZED_AT_ONCE:
            self._tokenize()
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        if label is not None and int.from_bytes(digest) < self._share * 2**64:
            self._sample.setdefault(digest, Sampled(number, text, label))

    def _tokenize(self) -> None:
        encodings = self._tokenizer.encode_batch_fast(self._waiting)
        self._tokens.append(np.array([len(encoding) for encoding in encodings], dtype=np.int32))
        self._waiting = []

    def sample(self) -> list[Sampled]:
        """Labelled rows of different texts, by a hash of the text: in no order that means something."""
        return [self._sample[digest] for digest in sorted(self._sample)]

    def finish(self, encoder: str) -> Survey:
        """What was seen."""
        self._tokenize()
        self._find_same_length()
        names = self._recipe.labels
        return Survey(
            labels={name: self._labels[index] for index, name in enumerate(names)},
            unlabelled=self._labels[None],
            lengths=self._lengths(encoder),
            flaws=dict(self._flaws),
            first_flaws=self._first_flaws,
            personal=dict(self._personal),
            personal_rows=self._personal_rows,
            scripts=dict(self._scripts.most_common()),
        )

    def _find_same_length(self) -> None:
        most = max(self._characters, default=0)
        count = self._characters[most]
        varied = len(self._characters) > _SAME_LENGTH_ROWS
        if varied and count >= max(_SAME_LENGTH_ROWS, _SAME_LENGTH_SHARE * self._characters.total()):
            self._flaws["same_length"] = count

    def _lengths(self, encoder: str) -> Lengths:
        tokens = np.concatenate(self._tokens)
        limit = self._recipe.training.row_tokens
        empty = not len(tokens)
        return Lengths(
            encoder=encoder,
            quantiles={} if empty else {name: int(np.percentile(tokens, at)) for name, at in _QUANTILES.items()},
            bars=[] if empty else histogram(tokens.tolist()),
            limit_tokens=limit,
            over_limit=int((tokens > limit).sum()),
        )


def open_tokenizer(encoder: EncoderFolder) -> Tokenizer:
    """The encoder's tokenizer without truncation or padding. Raises SourceUnavailable."""
    path = encoder.path / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path)) if path.is_file() else _converted(encoder.path)
    except Exception as error:  # the tokenizers library raises plain Exception
        raise SourceUnavailable(f"encoder {encoder.name}: its tokenizer cannot be read") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _converted(folder: Path) -> Tokenizer:
    """The tokenizer of a folder that has only a vocabulary."""
    import transformers

    tokenizer: Tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
    return tokenizer


def _place(row: Row) -> str:
    return f"row {row.number:,}" + (f" of {row.source}" if row.source else "")
