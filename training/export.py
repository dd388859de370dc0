"""From a fine-tuned checkpoint to the files that could be served: ONNX, TorchScript and their int8 candidates.

What is built here is only proposed; `training/gate.py` decides what is published. A further candidate is one more
entry in `CANDIDATES`.
"""

import logging
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import version_converter
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.optimizer import optimize_model
from pydantic import BaseModel, ConfigDict
from rich.progress import Progress
from tokenizers import Tokenizer

from artifact.manifest import TensorSpec, TextPreprocessing, Variant
from training.classifier import load_model, load_tokenizer
from training.disk import is_full_disk
from training.errors import TrainingError
from training.evaluate import softmax
from training.graph import data_of, rewrite, save_graph, split_skip_layer_norm
from training.rowwise import quantize_rowwise
from training.surgery import KEPT_HEADS

Feed = Mapping[str, NDArray[np.int64]]

# opset 17 is the newest with a LayerNormalization the older exporter writes as one node; what is built for onnxruntime
# alone may use newer operators: Attention-23, and QuantizeLinear-21 with a scale per block.
_OPSET: Final = 17
_NEWER_OPSET: Final = 23
_PARITY: Final = 1e-4
# Shapes unlike the one traced: a graph that remembers its example's batch size or length fails on one of them.
_SHAPES: Final = ((1, 3), (2, 21), (5, 8), (1, 48))
_TIMED_SHAPE: Final = (8, 32)
_TIMED_ROUNDS: Final = 9
_INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids")
_OUTPUT: Final = "logits"

# The older exporter and torch.jit are deprecated but not replaced: onnxruntime's attention fusion matches no layer of
# what the new exporter writes, and TorchScript is asked for by name. The rest are the tracer's remarks on branches
# over shapes, which `_check` puts to the test.
_EXPECTED_WARNINGS: Final[tuple[tuple[str, type[Warning]], ...]] = (
    ("You are using the legacy TorchScript-based ONNX export", DeprecationWarning),
    ("The feature will be removed", DeprecationWarning),
    ("`torch.jit.*` is deprecated", DeprecationWarning),
    ("`is_gradient_checkpointing` is deprecated", FutureWarning),
    ("Converting a tensor to a Python", Warning),
    ("torch.tensor results are registered as constants", Warning),
    ("Exporting aten::index operator of advanced indexing", UserWarning),
)


class Export(BaseModel):
    """What was built in a folder, and what could not be built and why. `notes` are for the report."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocessing: TextPreprocessing
    variants: tuple[Variant, ...]
    failures: dict[str, str] = {}
    notes: tuple[str, ...] = ()


class Logits(torch.nn.Module):
    """The classifier as a function of tensors: arguments in the order of `names`, result (batch, labels)."""

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)

    def forward(self, *arguments: torch.Tensor) -> torch.Tensor:
        """Logits of shape (batch, labels)."""
        logits: torch.Tensor = self.model(**dict(zip(self.names, arguments, strict=True))).logits
        return logits


@dataclass(frozen=True)
class Sources:
    """What candidates are built from.

    `plain` is the exported graph, `prepared` the same ready for onnxruntime's quantizers, `newer` the same at a newer
    opset, `fused` that with onnxruntime's transformer operators (`attention_matched` says in how many layers attention
    became one), and `split` is `fused` with skip connections and normalizations apart, which is faster.
    """

    module: Logits
    plain: Path
    prepared: Path
    newer: Path
    fused: Path
    split: Path
    attention_matched: int
    config: Any


@dataclass(frozen=True)
class Candidate:
    """A variant that can be proposed. `build` writes the file and returns a remark for the report."""

    name: str
    file: str
    format: Literal["onnx", "torchscript"]
    precision: Literal["fp32", "bf16", "fp16", "int8"]
    build: Callable[[Sources, Path], str]

    def variant(self, folder: Path) -> Variant:
        """How the manifest names what was built in `folder`."""
        data = data_of(folder / self.file)
        return Variant(
            name=self.name,
            file=self.file,
            data=data.name if data.exists() else None,
            format=self.format,
            precision=self.precision,
        )

    def discard(self, folder: Path) -> None:
        """Remove what an attempt left in `folder`."""
        for path in (folder / self.file, data_of(folder / self.file)):
            path.unlink(missing_ok=True)


def export_model(
    model_dir: Path, folder: Path, *, progress: Progress, candidates: Sequence[Candidate] | None = None
) -> Export:
    """Write every candidate and `tokenizer.json` into `folder`, which is emptied first.

    `candidates`: CANDIDATES unless others are given, the fp32 reference first.
    Raises TrainingError when fp32 cannot be exported; another candidate's failure is kept in the result.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model = load_model(model_dir, attention="eager").float().cpu()
    tokenizer = load_tokenizer(model_dir)
    names = input_names(model, tokenizer)
    chosen = CANDIDATES if candidates is None else candidates
    step = progress.add_task("export", total=len(chosen) + 1)
    with tempfile.TemporaryDirectory(prefix="slipway-export-") as work, expected_warnings(), _quiet_loggers():
        sources = _prepare(Logits(model, names).eval(), Path(work), model.config)
        progress.advance(step)
        built, failures, notes = _build_all(chosen, sources, folder, lambda: progress.advance(step))
    progress.remove_task(step)
    save_tokenizer(tokenizer, folder / "tokenizer.json")
    return Export(
        inputs=tuple(TensorSpec(name=name, dtype="int64", shape=("batch", "sequence")) for name in names),
        outputs=(TensorSpec(name=_OUTPUT, dtype="float32", shape=("batch", model.config.num_labels)),),
        preprocessing=TextPreprocessing(
            pad_token_id=tokenizer.pad_token_id or 0, pad_token_type_id=getattr(tokenizer, "pad_token_type_id", 0)
        ),
        variants=built,
        failures=failures,
        notes=notes,
    )


def input_names(model: Any, tokenizer: Any) -> tuple[str, ...]:
    """The model's inputs, in the order every format takes them: type ids only where model and tokenizer have them."""
    accepted = set(tokenizer.model_input_names) & set(model.forward.__annotations__)
    if getattr(model.config, "type_vocab_size", 0) < 2:
        accepted.discard("token_type_ids")
    return tuple(name for name in _INPUTS if name in accepted or name == "attention_mask")


def save_tokenizer(tokenizer: Any, path: Path) -> None:
    """Write the fast tokenizer without the padding and truncation that training may have left in it."""
    plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.no_padding()
    plain.no_truncation()
    plain.save(str(path))


@contextmanager
def expected_warnings() -> Iterator[None]:
    """Silence the warnings that exporting is known to give, and no others."""
    with warnings.catch_warnings():
        for message, category in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message, category=category)
        yield


@contextmanager
def _quiet_loggers() -> Iterator[None]:
    """The optimizer and the quantizer narrate every node at INFO and advise, in vain, at WARNING."""
    loggers = [logging.getLogger(name) for name in ("", "onnxruntime", "fusion_base", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _build_all(
    candidates: Sequence[Candidate], sources: Sources, folder: Path, advance: Callable[[], None]
) -> tuple[tuple[Variant, ...], dict[str, str], tuple[str, ...]]:
    built, failures, notes = [], {}, []
    for candidate in candidates:
        try:
            notes.append(f"{candidate.file}: {candidate.build(sources, folder / candidate.file)}")
            built.append(candidate.variant(folder))
        except Exception as error:  # each quantizer raises what it likes; the run goes on without that candidate
            if is_full_disk(error):
                raise  # no fault of the candidate, and not to be remembered as one
            if candidate is candidates[0]:
                raise TrainingError(f"the model cannot be exported to ONNX: {error}") from error
            candidate.discard(folder)
            failures[candidate.name] = f"could not be built: {error}"
        advance()
    return tuple(built), failures, tuple(notes)


def _prepare(module: Logits, work: Path, config: Any) -> Sources:
    """Export once; every ONNX candidate starts from that graph."""
    names = ("plain", "prepared", "newer", "fused", "split")
    plain, prepared, newer, fused, split = (work / f"{name}.onnx" for name in names)
    axes = {name: {0: "batch", 1: "sequence"} for name in module.names} | {_OUTPUT: {0: "batch"}}
    try:
        torch.onnx.export(
            module,
            _arguments(random_feed(module.names, (2, 8), config)),
            str(plain),
            input_names=list(module.names),
            output_names=[_OUTPUT],
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,
        )
    except Exception as error:  # the exporter raises a dozen kinds
        if is_full_disk(error):
            raise
        raise TrainingError(f"the model cannot be exported to ONNX: {error}") from error
    quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
    _modernize(plain, newer)
    matched = fuse(newer, fused, config)
    onnx.save(rewrite(onnx.load(fused), split_skip_layer_norm), split)
    return Sources(module, plain, prepared, newer, fused, split, matched, config)


def _modernize(plain: Path, newer: Path) -> None:
    """The same graph at a newer opset; as it is where it holds what cannot be converted."""
    try:
        onnx.save(version_converter.convert_version(onnx.load(plain), _NEWER_OPSET), newer)
    except Exception:  # the converter raises RuntimeError, and others from within
        shutil.copyfile(plain, newer)


def random_feed(names: Sequence[str], shape: tuple[int, int], config: Any, seed: int = 0) -> Feed:
    """Random token ids of `shape` (batch, sequence), every other row padded by a third."""
    random = np.random.default_rng(seed)
    ids = random.integers(1, config.vocab_size, shape, dtype=np.int64)
    mask = np.ones(shape, dtype=np.int64)
    mask[1::2, -(shape[1] // 3) or shape[1] :] = 0
    pad = getattr(config, "pad_token_id", None) or 0
    ids = np.where(mask == 1, np.where(ids == pad, ids - 1, ids), pad)
    arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros(shape, dtype=np.int64)}
    return {name: arrays[name] for name in names}


def _arguments(feed: Feed) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(array) for array in feed.values())


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def check_loads(path: Path) -> None:
    """Raises what onnxruntime raises: a graph that does not load is a failed build, not a failed gate."""
    _session(path)


def _check(answer: Callable[[Feed], NDArray[Any]], sources: Sources) -> float:
    """The largest score difference from torch over shapes the graph was not traced with. Raises ValueError."""
    worst = 0.0
    for shape in _SHAPES:
        feed = random_feed(sources.module.names, shape, sources.config, seed=shape[1])
        with torch.inference_mode():
            expected = softmax(sources.module(*_arguments(feed)).numpy())
        worst = max(worst, float(np.abs(softmax(answer(feed)) - expected).max()))
    if not worst <= _PARITY:
        raise ValueError(f"scores differ from torch by {worst:.2g} on shapes other than the traced one")
    return worst


def _build_fp32(sources: Sources, path: Path) -> str:
    """The exported graph, with attention fused where that matches every layer, is exact and is faster here."""
    plain = _session(sources.plain)
    worst = _check(lambda feed: _run(plain, feed), sources)
    use_fused, remark = _fusion_pays(sources, plain)
    save_graph(onnx.load(sources.split if use_fused else sources.plain), path)
    return f"{'fused' if use_fused else 'not fused'} ({remark}), the plain graph {worst:.1g} from torch"


def _fusion_pays(sources: Sources, plain: ort.InferenceSession) -> tuple[bool, str]:
    layers = sources.config.num_hidden_layers
    matched = f"attention matched in {sources.attention_matched} of {layers} layers"
    if sources.attention_matched < layers:
        return False, matched
    fused = _session(sources.split)
    try:
        worst = _check(lambda feed: _run(fused, feed), sources)
    except ValueError as error:
        return False, f"{matched}, but {error}"
    speed = _speed_ratio(plain, fused, random_feed(sources.module.names, _TIMED_SHAPE, sources.config))
    return speed > 1.0, f"{matched}, the fused graph at {speed:.2f} x the speed and {worst:.1g} from torch"


def _run(session: ort.InferenceSession, feed: Feed) -> NDArray[Any]:
    result: NDArray[Any] = session.run([_OUTPUT], dict(feed))[0]
    return result


def fuse(plain: Path, path: Path, config: Any, *, embeddings: bool = True) -> int:
    """Write the fused graph, or the plain one again, and return in how many layers attention became one node.

    Without `embeddings` their tables stay inputs of plain Gather nodes.
    """
    options = FusionOptions("bert")
    options.use_raw_attention_mask(True)
    options.enable_embed_layer_norm = embeddings
    heads = getattr(config, KEPT_HEADS, config.num_attention_heads)
    try:
        optimized = optimize_model(
            str(plain),
            model_type="bert",
            num_heads=heads,
            hidden_size=heads * (config.hidden_size // config.num_attention_heads),
            opt_level=0,
            optimization_options=options,
        )
        optimized.save_model_to_file(str(path))
    except Exception:  # an encoder unlike BERT may meet any assertion in there
        shutil.copyfile(plain, path)
        return 0
    return int(optimized.get_fused_operator_statistics()["Attention"])


def _speed_ratio(before: ort.InferenceSession, after: ort.InferenceSession, feed: Feed) -> float:
    """How many times faster `after` is. Taken in turns, so that a machine that slows down slows both."""
    seconds: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(_TIMED_ROUNDS):
        for which, session in enumerate((before, after)):
            started = time.perf_counter()
            _run(session, feed)
            seconds[which].append(time.perf_counter() - started)
    return statistics.median(seconds[0]) / statistics.median(seconds[1])


def _build_torchscript(sources: Sources, path: Path) -> str:
    """A traced module. The example's shape must not be baked in: `_check` tries others."""
    example = _arguments(random_feed(sources.module.names, (2, 8), sources.config))
    with torch.inference_mode():
        traced: Any = torch.jit.trace(sources.module, example, check_trace=False)  # type: ignore[no-untyped-call]
        traced = torch.jit.freeze(traced)
        worst = _check(lambda feed: np.asarray(traced(*_arguments(feed)).numpy()), sources)
    traced.save(str(path))
    return f"traced, {worst:.1g} from torch"


def _build_rowwise_int8(sources: Sources, path: Path) -> str:
    """Weights per column, one activation scale per token: neighbours cannot enter (training/rowwise.py).

    The embedding table has a scale per row (training/embedding.py).
    """
    save_graph(quantize_rowwise(onnx.load(sources.fused)), path)
    check_loads(path)
    return "int8, one activation scale per token"


def _build_dynamic_int8(sources: Sources, path: Path) -> str:
    """What every tutorial does: weights per channel, one activation scale per tensor taken at run time.

    Offered so that every report shows what it would have cost; the gate has refused it on every real model so far.
    """
    quantize_dynamic(str(sources.prepared), str(path), per_channel=True, weight_type=QuantType.QInt8)
    save_graph(onnx.load(path), path)
    return "dynamic int8, per channel"


# The first is the reference that everything is published with; the others are offered to the gate in this order.
CANDIDATES: Final[tuple[Candidate, ...]] = (
    Candidate("fp32", "model.onnx", "onnx", "fp32", _build_fp32),
    Candidate("torchscript", "model.ts", "torchscript", "fp32", _build_torchscript),
    Candidate("int8", "model.int8.onnx", "onnx", "int8", _build_rowwise_int8),
    Candidate("int8-dynamic", "model.int8-dynamic.onnx", "onnx", "int8", _build_dynamic_int8),
)
