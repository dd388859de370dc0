"""The fixed yardstick: onnxruntime dynamic int8 of the graph as onnxruntime's own optimizer fuses it.

It is what the field's tutorials serve, so ratios to it compare across projects and over time, while the variant that
Slipway publishes may change. Its answers depend on the batch; it is a yardstick, not something to serve.
"""

import contextlib
import hashlib
import logging
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from artifact.files import record
from artifact.manifest import Variant
from artifact.repository import Artifact
from benchmarks.wrk import BenchmarkError

# How the yardstick is run, whatever suits the machine better: 2 workers, kernels on 1 thread, batches of 8.
WORKERS: Final = 2
THREADS: Final = 1
BATCH: Final = 8
PRECISION: Final = "int8"


def build_yardstick(artifact: Artifact, cache: Path, checkpoint: Path | None = None) -> Path:
    """The quantized graph's file in `cache`, made once for each source.

    Made from the artifact's fp32 graph when that is fused, or can be; otherwise (a graph rewritten by us) exported
    again from `checkpoint`, a folder with the fine-tuned model, or the newest of that model below `runs/`. The speed
    does not depend on the weights. Raises BenchmarkError when neither works.
    """
    graph = _fp32(artifact)
    source = artifact.path / graph.file
    if checkpoint is None and what_is_not_fused(operators(source)) is not None:
        checkpoint = newest_checkpoint(Path("runs", artifact.manifest.name))
    whole = [artifact.path / name for name in graph.files]
    target = cache / f"yardstick-{_digest(whole if checkpoint is None else [checkpoint / 'model.safetensors'])}.onnx"
    if target.is_file():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as work, _quiet():
        fused = Path(work, "fused.onnx")
        _fuse(source, fused) if checkpoint is None else _export(checkpoint, fused)
        if (missing := what_is_not_fused(operators(fused))) is not None:
            raise BenchmarkError(
                f"no yardstick from {(checkpoint or source).name}: {missing}; "
                "name the fine-tuned model's folder with --checkpoint"
            )
        quantized = Path(work, "quantized.onnx")
        _quantize(fused, quantized)
        quantized.replace(target)
    return target


def newest_checkpoint(runs: Path) -> Path | None:
    """The folder of the model that was fine-tuned last, as `slipway train` leaves it (training/pipeline.py)."""
    found = [path for path in runs.glob("*/fine-tune/*/model.safetensors") if (path.parent / "config.json").is_file()]
    return max(found, key=lambda path: path.stat().st_mtime).parent if found else None


def _fp32(artifact: Artifact) -> Variant:
    for variant in artifact.manifest.variants:
        if variant.precision == "fp32" and variant.format == "onnx":
            return variant
    raise BenchmarkError(f"{artifact.path} has no fp32 ONNX variant to make the yardstick from")


def operators(model: Path) -> Mapping[str, int]:
    """How often each operator occurs."""
    import onnx

    return Counter(node.op_type for node in onnx.load(str(model), load_external_data=False).graph.node)


def what_is_not_fused(found: Mapping[str, int]) -> str | None:
    """Why a graph is not what onnxruntime's optimizer makes of an encoder, or None: it is."""
    layers = found.get("Attention", 0)
    if not layers:
        return "no Attention node, so its layers are not fused"
    norms = found.get("SkipLayerNormalization", 0)
    if norms < 2 * layers:
        return f"{norms} SkipLayerNormalization nodes for {layers} layers"
    return None


def _fuse(source: Path, target: Path) -> None:
    """The optimizer's graph; a graph that is fused already passes through it unchanged."""
    if what_is_not_fused(operators(source)) is None:
        import onnx

        onnx.save(onnx.load(str(source)), str(target))  # not a copy: the weights may lie in a file beside it
        return
    from onnxruntime.transformers.optimizer import optimize_model

    try:
        optimize_model(str(source), model_type="bert", opt_level=0).save_model_to_file(str(target))
    except Exception as error:  # assertions of every kind
        raise BenchmarkError(f"onnxruntime's optimizer fails on {source.name}: {error}") from error


def _export(checkpoint: Path, target: Path) -> None:
    """From torch, the way `training/export.py` does it."""
    import torch
    from onnxruntime.transformers.optimizer import optimize_model

    from training.classifier import load_model, load_tokenizer
    from training.export import Logits, expected_warnings, input_names, random_feed

    model: Any = load_model(checkpoint, attention="eager").float().cpu()
    names = input_names(model, load_tokenizer(checkpoint))
    example = tuple(torch.from_numpy(array) for array in random_feed(names, (2, 8), model.config).values())
    plain = target.with_name("plain.onnx")
    axes = {name: {0: "batch", 1: "sequence"} for name in names} | {"logits": {0: "batch"}}
    with expected_warnings():
        torch.onnx.export(
            Logits(model, names).eval(), example, str(plain), input_names=list(names), output_names=["logits"],
            dynamic_axes=axes, opset_version=17, dynamo=False,
        )  # fmt: skip
    heads, width = model.config.num_attention_heads, model.config.hidden_size
    fused = optimize_model(str(plain), model_type="bert", num_heads=heads, hidden_size=width, opt_level=0)
    fused.save_model_to_file(str(target))


def _quantize(source: Path, target: Path) -> None:
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Shape inference knows no fused operator, so the quantizer has to be told what type flows between them.
    types = {"DefaultTensorType": TensorProto.FLOAT}
    quantize_dynamic(str(source), str(target), per_channel=True, weight_type=QuantType.QInt8, extra_options=types)


def _digest(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(record(path).sha256.encode())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _quiet() -> Any:
    """The optimizer and the quantizer narrate every node."""
    loggers = [logging.getLogger(name) for name in ("", "fusion_base", "fusion_attention", "onnxruntime")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
