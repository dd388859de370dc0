"""The model half of every driver: the yardstick's graph and tokenizer, one padded batch at a time.

Drivers run in environments of their own, so nothing here comes from Slipway. Configured by the environment:
PEER_MODEL and PEER_TOKENIZER are files, PEER_THREADS the kernels' threads, PEER_COUNTS a folder for token counts.
"""

import mmap
import os
import struct
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

# Real and padded tokens computed so far, in a file of its own for each encoder: servers have many processes.
_COUNTS: Final = struct.Struct("=QQ")


class TokenCounter:
    """Tells a benchmark in another process how many tokens were computed, and how many of them were real."""

    def __init__(self, folder: Path) -> None:
        path = folder / f"{os.getpid()}-{id(self)}"
        path.write_bytes(bytes(_COUNTS.size))
        with path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), _COUNTS.size)
        self._lock = threading.Lock()

    def add(self, real: int, padded: int) -> None:
        """Count one batch."""
        with self._lock:
            before = _COUNTS.unpack_from(self._page)
            _COUNTS.pack_into(self._page, 0, before[0] + real, before[1] + padded)


def read_tokens(folder: Path) -> tuple[int, int]:
    """Real and padded tokens of all encoders that count into `folder`."""
    found = [_COUNTS.unpack(path.read_bytes()) for path in folder.iterdir()]
    return sum(real for real, _ in found), sum(padded for _, padded in found)


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
        counts = os.environ.get("PEER_COUNTS")
        self._counter = TokenCounter(Path(counts)) if counts else None

    def scores(self, texts: Sequence[str]) -> list[list[float]]:
        """One list of probabilities per text, in its order."""
        encoded = self._tokenizer.encode_batch(list(texts))
        feed = {
            "input_ids": np.array([each.ids for each in encoded], dtype=np.int64),
            "attention_mask": np.array([each.attention_mask for each in encoded], dtype=np.int64),
            "token_type_ids": np.array([each.type_ids for each in encoded], dtype=np.int64),
        }
        if self._counter is not None:
            self._counter.add(int(feed["attention_mask"].sum()), feed["attention_mask"].size)
        logits: Any = self._session.run(None, {name: feed[name] for name in self._names})[0]
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        found: list[list[float]] = (powers / powers.sum(axis=1, keepdims=True)).tolist()
        return found
