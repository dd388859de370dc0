"""Models for tests of what serves them, without training one: the tests' tiny classifier, in other forms."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from artifact.manifest import GOLDEN
from artifact.publish import publish, staging
from tests import tiny_artifact

_WIDTH: Final = 512
_LAYERS: Final = 80


def publish_costly(repository: Path) -> None:
    """Publish the next version of `sentiment`, with the tiny model's answers; an input takes milliseconds."""
    with staging(repository) as staged:
        tokenizer = tiny_artifact.tiny_tokenizer()
        tokenizer.save(str(staged / "tokenizer.json"))
        onnx.save(burdened(tiny_artifact.tiny_graph(tokenizer)), str(staged / "model.onnx"))
        golden = tiny_artifact._golden(staged / "model.onnx", tokenizer, spoil=False)
        (staged / GOLDEN).write_text(golden.model_dump_json(indent=2), encoding="utf-8")
        publish(staged, repository, tiny_artifact._manifest(tiny_artifact.MODEL))


def publish_for_ci(repository: Path, texts: Path) -> None:
    """A `repository` with one tiny model, unless it is there, and a file of texts that suit it, a text a line."""
    if not any(repository.glob("*/*/manifest.json")):
        tiny_artifact.publish_tiny(repository)
    for path in (repository, *repository.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)  # a container's user is another one
    words = [text for text in tiny_artifact.GOLDEN_TEXTS for _ in range(8)]
    lines = [" ".join(words[number : number + 1 + number % 7]) for number in range(len(words))]
    texts.write_text("\n".join(dict.fromkeys(lines)) + "\n", encoding="utf-8")


def publish_torchscript(repository: Path) -> None:
    """Publish the next version of `sentiment` with one variant, TorchScript that answers as the tiny model does.

    Raises ImportError without torch.
    """
    with staging(repository) as staged:
        tokenizer = tiny_artifact.tiny_tokenizer()
        tokenizer.save(str(staged / "tokenizer.json"))
        onnx.save(tiny_artifact.tiny_graph(tokenizer), str(staged / "model.onnx"))
        golden = tiny_artifact._golden(staged / "model.onnx", tokenizer, spoil=False)
        (staged / GOLDEN).write_text(golden.model_dump_json(indent=2), encoding="utf-8")
        _save_traced(onnx.load(str(staged / "model.onnx")), staged / "model.ts")
        (staged / "model.onnx").unlink()
        manifest = tiny_artifact._manifest(tiny_artifact.MODEL)
        variant = manifest.variants[0].model_copy(update={"file": "model.ts", "format": "torchscript"})
        publish(staged, repository, manifest.model_copy(update={"variants": (variant,)}))


def _save_traced(model: onnx.ModelProto, path: Path) -> None:
    import torch

    weights = {each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in model.graph.initializer}

    class Tiny(torch.nn.Module):
        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            kept = mask.float().unsqueeze(2)
            mean = (weights["embedding"][ids] * kept).sum(dim=1) / kept.sum(dim=1)
            return mean @ weights["weight"] + weights["bias"]

    example = torch.ones(2, 3, dtype=torch.long)
    traced: Any = torch.jit.trace(Tiny(), (example, example))  # type: ignore[no-untyped-call]
    traced.save(str(path))


def burdened(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with a tower of dense layers over every token, whose result, times nearly nothing, joins the logits.

    Like an encoder's, the cost grows with tokens, and batching does not make it cheaper. A padding token is all
    zeros and stays so: an answer still does not depend on it.
    """
    numbers = np.random.default_rng(7)
    graph = model.graph
    graph.node[-1].output[0] = "light"
    weights = {
        "widen": numbers.normal(size=(2, _WIDTH)),
        "dense": numbers.normal(size=(_WIDTH, _WIDTH)) / _WIDTH**0.5,
        "narrow": numbers.normal(size=(_WIDTH, 2)) * 1e-12,
    }
    graph.initializer.extend(numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items())
    graph.node.append(helper.make_node("MatMul", ["visible", "widen"], ["wide_0"]))
    for layer in range(_LAYERS):
        graph.node.append(helper.make_node("MatMul", [f"wide_{layer}", "dense"], [f"dense_{layer}"]))
        graph.node.append(helper.make_node("Tanh", [f"dense_{layer}"], [f"wide_{layer + 1}"]))
    graph.node.append(helper.make_node("ReduceSum", [f"wide_{_LAYERS}", "middle"], ["summed"], keepdims=0))
    graph.node.append(helper.make_node("MatMul", ["summed", "narrow"], ["burden"]))
    graph.node.append(helper.make_node("Add", ["light", "burden"], ["logits"]))
    return model
