"""A real artifact that is published in milliseconds: a word-level tokenizer and a four-row ONNX classifier.

The graph is an embedding, a masked mean and a linear layer, so an answer does not depend on padding or neighbours,
and words mean something: "good" and its kin push towards `positive`, "bad" and its kin towards `negative`.
Nothing here needs torch or a download.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from artifact.manifest import (
    GOLDEN,
    Estimate,
    GateResult,
    Golden,
    GoldenInput,
    Limits,
    Manifest,
    Provenance,
    Reference,
    TensorSpec,
    TextPreprocessing,
    Variant,
    VariantResult,
)
from artifact.publish import publish, staging
from inference.tasks.text import normalize_text
from inference.tasks.windows import windows

MODEL: Final = "sentiment"
LABELS: Final = ("negative", "positive")
MAX_INPUT_TOKENS: Final = 64
_GOOD: Final = ("good", "great", "warm", "funny", "delightful", "best")
_BAD: Final = ("bad", "awful", "dull", "boring", "mess", "worst")
_PLAIN: Final = ("a", "an", "and", "the", "film", "movie", "is", "was", "it", "very", "not", "of", ".", ",", "!")
_SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
GOLDEN_TEXTS: Final = (
    "good",
    "an awful mess .",
    "the film was very good , warm and funny",
    "a dull , boring movie and the worst film of the best",
)


def publish_tiny(
    repository: Path,
    name: str = MODEL,
    *,
    promote: bool = False,
    spoil_golden: bool = False,
    reference: Reference | None = None,
    window_tokens: int | None = None,
) -> tuple[Path, Manifest]:
    """Publish the next version of a tiny `name` into `repository`; return its folder and manifest.

    With `spoil_golden` the golden answers are wrong, so that loading must refuse the artifact. With `window_tokens` a
    longer text is read in windows.
    """
    with staging(repository) as staged:
        tokenizer = tiny_tokenizer()
        tokenizer.save(str(staged / "tokenizer.json"))
        onnx.save(tiny_graph(tokenizer), str(staged / "model.onnx"))
        golden = _golden(staged / "model.onnx", tokenizer, spoil=spoil_golden, window=window_tokens or MAX_INPUT_TOKENS)
        (staged / GOLDEN).write_text(golden.model_dump_json(indent=2), encoding="utf-8")
        preprocessing = TextPreprocessing(window_tokens=window_tokens)
        changed = {"reference": reference, "preprocessing": preprocessing}
        return publish(staged, repository, _manifest(name).model_copy(update=changed), promote=promote)


def tiny_tokenizer() -> Tokenizer:
    """Lower-cased words and punctuation, wrapped in [CLS] and [SEP] like the tokenizers of BERT's family."""
    vocabulary = {word: number for number, word in enumerate((*_SPECIAL, *_GOOD, *_BAD, *_PLAIN))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    return tokenizer


def tiny_graph(tokenizer: Tokenizer) -> onnx.ModelProto:
    """`input_ids`, `attention_mask` int64 (batch, sequence) -> `logits` float32 (batch, 2)."""
    ids, mask = (
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
        for name in ("input_ids", "attention_mask")
    )
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(LABELS)])
    nodes = [
        helper.make_node("Gather", ["embedding", "input_ids"], ["embedded"]),
        helper.make_node("Cast", ["attention_mask"], ["kept"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["kept", "last"], ["kept_wide"]),
        helper.make_node("Mul", ["embedded", "kept_wide"], ["visible"]),
        helper.make_node("ReduceSum", ["visible", "middle"], ["total"], keepdims=0),
        helper.make_node("ReduceSum", ["kept", "middle"], ["count"], keepdims=1),
        helper.make_node("Div", ["total", "count"], ["mean"]),
        helper.make_node("MatMul", ["mean", "weight"], ["projected"]),
        helper.make_node("Add", ["projected", "bias"], ["logits"]),
    ]
    initializers = [
        numpy_helper.from_array(array, name)
        for name, array in {
            "embedding": _embedding(tokenizer),
            "weight": np.array([[-4.0, 4.0], [0.25, -0.25]], dtype=np.float32),
            "bias": np.array([0.05, -0.05], dtype=np.float32),
            "last": np.array([2], dtype=np.int64),
            "middle": np.array([1], dtype=np.int64),
        }.items()
    ]
    graph = helper.make_graph(nodes, "tiny", [ids, mask], [logits], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def _embedding(tokenizer: Tokenizer) -> NDArray[np.float32]:
    """One row per word: how good it is, and a little that depends on the word alone."""
    rows = np.zeros((tokenizer.get_vocab_size(), 2), dtype=np.float32)
    rows[:, 1] = np.linspace(-1, 1, len(rows), dtype=np.float32)
    for words, value in ((_GOOD, 1.0), (_BAD, -1.0)):
        rows[np.array([tokenizer.token_to_id(word) for word in words]), 0] = value
    return rows


def _golden(model: Path, tokenizer: Tokenizer, *, spoil: bool, window: int = MAX_INPUT_TOKENS) -> Golden:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    answers = [_answer(session, tokenizer, text, window) for text in GOLDEN_TEXTS]
    if spoil:
        answers = [tuple(reversed(scores)) for scores in answers]
    return Golden(
        inputs=tuple(
            GoldenInput(input=text, label=LABELS[int(np.argmax(scores))], scores=scores)
            for text, scores in zip(GOLDEN_TEXTS, answers, strict=True)
        ),
        tolerance={"fp32": 1e-4},
    )


def _answer(session: Any, tokenizer: Tokenizer, text: str, window: int) -> tuple[float, ...]:
    first, *own, last = tokenizer.encode(normalize_text(text)).ids
    parts = [[first, *own[start:end], last] for start, end in windows(len(own), window - 2)]
    found = []
    for part in parts:
        ids = np.array([part], dtype=np.int64)
        found.append(session.run(["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0][0])
    logits = np.mean(found, axis=0)
    powers = np.exp(logits - logits.max())
    return tuple(float(score) for score in powers / powers.sum())


def _manifest(name: str) -> Manifest:
    """What training would promise; `publish` fills version and files."""
    axes = ("batch", "sequence")
    accuracy = {"accuracy": Estimate(value=0.9, low=0.85, high=0.95)}
    return Manifest.model_construct(
        name=name,
        version=1,
        task="text-classification",
        inputs=tuple(TensorSpec(name=n, dtype="int64", shape=axes) for n in ("input_ids", "attention_mask")),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=("batch", len(LABELS))),),
        labels=LABELS,
        limits=Limits(max_input_tokens=MAX_INPUT_TOKENS),
        preprocessing=TextPreprocessing(),
        variants=(Variant(name="fp32", file="model.onnx", format="onnx", precision="fp32"),),
        length_quantiles={"0.5": 8, "0.99": 20},
        files={},
        provenance=Provenance(created=datetime.now(UTC), recipe={"name": "tiny"}, data_fingerprint="none", seed=0),
        gate=GateResult(
            passed=True,
            test_rows=len(GOLDEN_TEXTS),
            reference_metrics=accuracy,
            variants=(VariantResult(name="fp32", published=True, metrics=accuracy),),
        ),
    )
