"""The model half of every driver: the yardstick's graph and tokenizer, one padded batch at a time.

Drivers run in environments of their own, so nothing here comes from Slipway. Configured by the environment:
PEER_MODEL and PEER_TOKENIZER are files, PEER_THREADS the kernels' threads.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer


class Encoder:
    """Texts to probabilities. Safe to call from several threads."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("PEER_THREADS", "1"))
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(os.environ["PEER_MODEL"], options, providers=["CPUExecutionProvider"])
        self._names = {entry.name for entry in self._session.get_inputs()}
        self._tokenizer = Tokenizer.from_file(os.environ["PEER_TOKENIZER"])
        self._tokenizer.enable_padding()
        self._tokenizer.enable_truncation(512)

    def scores(self, texts: Sequence[str]) -> list[list[float]]:
        """One list of probabilities per text, in its order."""
        encoded = self._tokenizer.encode_batch(list(texts))
        feed = {
            "input_ids": np.array([each.ids for each in encoded], dtype=np.int64),
            "attention_mask": np.array([each.attention_mask for each in encoded], dtype=np.int64),
            "token_type_ids": np.array([each.type_ids for each in encoded], dtype=np.int64),
        }
        logits: Any = self._session.run(None, {name: feed[name] for name in self._names})[0]
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        found: list[list[float]] = (powers / powers.sum(axis=1, keepdims=True)).tolist()
        return found
