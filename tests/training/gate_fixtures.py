"""A tiny classifier that has really learned something, exported once for every test that needs one."""

import atexit
import functools
import random
import shutil
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
import transformers
from rich.progress import Progress

from artifact.manifest import GOLDEN, FileRecord, GateResult, Limits, Manifest, Provenance, Variant
from tests.training import tiny
from training.classifier import load_model, load_tokenizer, predict_logits
from training.evaluate import softmax
from training.export import Export, export_model
from training.gate import Floors, Trial
from training.quiet import quiet

LABELS = ("negative", "positive")
ROWS = 80


@dataclass(frozen=True)
class Tiny:
    """A fine-tuned model, what was exported from it, and a test split with torch's answers."""

    model_dir: Path
    export_dir: Path
    export: Export
    texts: tuple[str, ...]
    labels: np.ndarray
    torch_scores: np.ndarray

    def trial(self, folder: Path, **changes: object) -> Trial:
        """A trial over a copy of the exported files, which a test may then spoil."""
        shutil.copytree(self.export_dir, folder)
        trial = Trial(
            folder=folder,
            manifest=self.manifest(self.export.variants),
            texts=self.texts,
            labels=self.labels,
            torch_scores=self.torch_scores,
            floors=Floors(),
            failures=self.export.failures,
        )
        return replace(trial, **changes)  # type: ignore[arg-type]

    def manifest(self, variants: tuple[Variant, ...]) -> Manifest:
        """The manifest as it is before the gate."""
        nothing = FileRecord(sha256="0" * 64, bytes=0)
        files = [name for variant in variants for name in variant.files] + [GOLDEN, "tokenizer.json"]
        return Manifest(
            name="tiny",
            version=1,
            task="text-classification",
            inputs=self.export.inputs,
            outputs=self.export.outputs,
            labels=LABELS,
            limits=Limits(max_input_tokens=tiny.MAX_TOKENS),
            preprocessing=self.export.preprocessing,
            variants=variants,
            files=dict.fromkeys(files, nothing),
            provenance=Provenance(created=datetime.now(UTC), recipe={}, data_fingerprint="sha256:0", seed=1),
            gate=GateResult(passed=False, test_rows=len(self.texts)),
        )


@functools.cache
def tiny_model() -> Tiny:
    """Made once per test process."""
    folder = Path(tempfile.mkdtemp(prefix="slipway-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    words = random.Random(11)
    texts = tuple(" ".join(tiny.review(row % 2, words) for _ in range(words.randint(1, 3))) for row in range(ROWS))
    # A review of one kind may be followed by one of the other here: what it is worth does not matter, margins do.
    labels = np.arange(ROWS, dtype=np.int64) % 2
    with quiet(), Progress(disable=True) as progress:
        _learn(tiny.encoder_folder(folder / "encoder").path, folder / "model", texts, labels)
        export = export_model(folder / "model", folder / "export", progress=progress)
        logits = predict_logits(
            load_model(folder / "model"), load_tokenizer(folder / "model"), texts, max_tokens=tiny.MAX_TOKENS
        )
    return Tiny(folder / "model", folder / "export", export, texts, labels, softmax(logits))


def _learn(encoder: Path, target: Path, texts: tuple[str, ...], labels: np.ndarray) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            encoder, num_labels=2, id2label=dict(enumerate(LABELS)), label2id={"negative": 0, "positive": 1}
        ).eval()
        tokenizer = load_tokenizer(encoder)
        batch = tokenizer(list(texts), padding=True, truncation=True, max_length=tiny.MAX_TOKENS, return_tensors="pt")
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for _ in range(60):
            loss = torch.nn.functional.cross_entropy(model(**batch).logits, torch.from_numpy(labels))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
