"""Text classification: one text in, one probability per label out."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from artifact.manifest import Manifest
from inference.errors import BackendFailed, BadInput
from inference.tasks.base import Arrays, Prediction, Prepared
from inference.tasks.text import unknown_token_id
from inference.tasks.transforms import Cleaner

# A text longer than this many characters per allowed token is first tokenized up to there: if that part alone has
# too many tokens, the rest need not be looked at. It bounds what a four-megabyte text can cost.
_CHARACTERS_PER_TOKEN = 16


class TextClassification:
    """Tokenizes, pads and applies the softmax for a model with `labels` and a logit for each.

    `tokenizer` is the task's own from here on: its padding and truncation are switched off.
    """

    def __init__(self, manifest: Manifest, tokenizer: Tokenizer) -> None:
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
        self._most_own_tokens = self.max_input_tokens - tokenizer.num_special_tokens_to_add(is_pair=False)

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
        ids = self._tokenizer.encode(head).ids
        if len(head) < len(text) and len(ids) <= self.max_input_tokens:
            head, ids = text, self._tokenizer.encode(text).ids
        if len(ids) <= self.max_input_tokens:
            return Prepared(ids, len(ids), unknown=ids.count(self._unknown_id))
        if not truncate:
            return Prepared((), len(ids), excess=True)
        kept = self._truncated(head)
        return Prepared(kept, len(kept), truncated=True, unknown=kept.count(self._unknown_id))

    def _truncated(self, text: str) -> list[int]:
        """As many tokens as the model takes, special ones included.

        Truncation is a state of the tokenizer, which threads share, and a second tokenizer has the vocabulary twice:
        so the text's own tokens are cut, and the special ones added around what is left.
        """
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        encoding.truncate(self._most_own_tokens)
        ids: list[int] = self._tokenizer.post_process(encoding).ids
        return ids

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
