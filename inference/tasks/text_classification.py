"""Text classification: one text in, one probability per label out."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from artifact.errors import ArtifactCorrupt
from artifact.manifest import Manifest
from inference.errors import BackendFailed, BadInput
from inference.tasks.base import Arrays, Prediction, Prepared
from inference.tasks.text import unknown_token_id
from inference.tasks.transforms import Cleaner
from inference.tasks.windows import windows

# A text longer than this many characters per allowed token is first tokenized up to there: if that part alone has
# too many tokens, the rest need not be looked at. It bounds what a four-megabyte text can cost.
_CHARACTERS_PER_TOKEN = 16
# The least probability that has a logarithm at full precision.
_LEAST = float(np.finfo(np.float64).tiny)


class TextClassification:
    """Tokenizes, pads and applies the softmax for a model with `labels` and a logit for each.

    A text of more tokens than a window, where the manifest names one, is read in windows, and the answer is the mean of
    their logits. `tokenizer` is the task's own from here on: its padding and truncation are switched off.
    """

    def __init__(self, manifest: Manifest, tokenizer: Tokenizer) -> None:
        """Raises ArtifactCorrupt for a window that special tokens fill."""
        self.labels = manifest.labels
        self.max_input_tokens = manifest.limits.max_input_tokens
        self._pad_id = manifest.preprocessing.pad_token_id
        self._type_pad_id = manifest.preprocessing.pad_token_type_id
        self._clean = Cleaner.of(manifest.preprocessing)
        self._inputs = tuple(spec.name for spec in manifest.inputs)
        self._output = manifest.outputs[0].name
        self._tokenizer = tokenizer
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._unknown_id = unknown_token_id(tokenizer)
        special = tokenizer.num_special_tokens_to_add(is_pair=False)
        self._most_own_tokens = self.max_input_tokens - special
        self._window_tokens = manifest.preprocessing.window_tokens or self.max_input_tokens
        self._room = self._window_tokens - special
        if self._room < 1:
            raise ArtifactCorrupt(f"preprocessing.window_tokens: {special} of {self._window_tokens} are special tokens")

    def check(self, value: object, field: str) -> str:
        """A non-empty text of whole Unicode characters. Raises BadInput."""
        if not isinstance(value, str):
            raise BadInput(field, "must be a string")
        if not value or value.isspace():
            raise BadInput(field, "must not be empty")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadInput(field, "holds a lone surrogate, which is not a character") from None
        return value

    def prepare(self, value: str, *, truncate: bool) -> Prepared:
        """Clean and tokenize one text; special tokens are counted."""
        text = self._clean(value)
        if not text:
            return Prepared((), 0, blank=True)
        head = self._head(text)
        encoding = self._tokenizer.encode(head)
        ids: list[int] = encoding.ids
        if len(head) < len(text) and len(ids) <= self.max_input_tokens:
            head, encoding = text, self._tokenizer.encode(text)
            ids = encoding.ids
        truncated = len(ids) > self.max_input_tokens
        if truncated:
            if not truncate:
                return Prepared((), len(ids), excess=True)
            encoding = self._truncated(head)
            ids = encoding.ids
        unknown = ids.count(self._unknown_id)
        if len(ids) <= self._window_tokens:
            return Prepared(ids, len(ids), truncated=truncated, unknown=unknown)
        rows = self._windows(encoding)
        return Prepared(list(chain(*rows)), len(ids), truncated=truncated, unknown=unknown, windows=len(rows))

    def _windows(self, encoding: Encoding) -> list[list[int]]:
        """The ids of each window of a text, the text's own special tokens around each."""
        ids, special = encoding.ids, encoding.special_tokens_mask
        start, end = special.index(0), len(ids) - special[::-1].index(0)
        before, own, after = ids[:start], ids[start:end], ids[end:]
        return [[*before, *own[first:last], *after] for first, last in windows(len(own), self._room)]

    def _truncated(self, text: str) -> Encoding:
        """As many tokens as the model takes, special ones included.

        Truncation is a state of the tokenizer, which threads share, and a second tokenizer has the vocabulary twice:
        so the text's own tokens are cut, and the special ones added around what is left.
        """
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        encoding.truncate(self._most_own_tokens)
        return self._tokenizer.post_process(encoding)

    def _head(self, text: str) -> str:
        """The part of a very long text that is sure to hold more tokens than the model takes, in any usual text."""
        most = self.max_input_tokens * _CHARACTERS_PER_TOKEN
        if len(text) <= most:
            return text
        end = text.rfind(" ", 0, most)
        return text[: end if end > 0 else most]

    def collate(self, items: Sequence[Prepared]) -> dict[str, NDArray[np.int64]]:
        """Token ids, mask and, where the model has them, type ids: int64 arrays of shape (batch, longest)."""
        shape = (len(items), max(len(item.ids) for item in items))
        ids = np.full(shape, self._pad_id, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        for row, item in enumerate(items):
            ids[row, : len(item.ids)] = item.ids
            mask[row, : len(item.ids)] = 1
        arrays = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self._inputs:
            arrays["token_type_ids"] = np.where(mask == 1, 0, self._type_pad_id)
        return arrays

    def decode(self, outputs: Arrays) -> list[Prediction | BackendFailed]:
        """Softmax over logits of shape (batch, labels), in float64. Raises BackendFailed on another shape."""
        logits = outputs[self._output]
        if logits.ndim != 2 or logits.shape[1] != len(self.labels):
            raise BackendFailed(f"the model returned shape {logits.shape} for {len(self.labels)} labels")
        finite: NDArray[np.bool_] = np.asarray(np.isfinite(logits).all(axis=1))
        safe = np.where(finite[:, None], logits, 0).astype(np.float64)
        exponentials = np.exp(safe - safe.max(axis=1, keepdims=True))
        scores = (exponentials / exponentials.sum(axis=1, keepdims=True)).tolist()
        best = safe.argmax(axis=1).tolist()
        return [
            Prediction(self.labels[winner], row[winner], tuple(row))
            if usable
            else BackendFailed("the model returned a score that is not a finite number")
            for winner, row, usable in zip(best, scores, finite, strict=True)
        ]

    def merge(self, windows: Sequence[Prediction]) -> Prediction:
        """The softmax of the mean of the windows' logits, in float64 and in the order of the text.

        Taken from the scores: their logarithms are the logits less one number a window, and a softmax does not see
        what all labels have in common. So a row's logits need not be kept for the few that are windows.
        """
        logits = np.log(np.maximum(np.array([each.scores for each in windows], dtype=np.float64), _LEAST)).mean(axis=0)
        exponentials = np.exp(logits - logits.max())
        scores = (exponentials / exponentials.sum()).tolist()
        winner = int(logits.argmax())
        return Prediction(self.labels[winner], scores[winner], tuple(scores))
