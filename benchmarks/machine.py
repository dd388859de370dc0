"""What the machine is and what it could do: its cores, and the fastest matrix products measured on them.

The peak of a precision is the best of the libraries at hand on a large product; useful work over it says how much of
the hardware a model reaches. A text's useful operations are those of its real tokens, padding not counted.
"""

import importlib
import os
import platform
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np

from inference.layout import read_cpu, usable_cores

_LIBRARIES: Final = (
    "slipway",
    "onnxruntime",
    "openvino",
    "tokenizers",
    "numpy",
    "torch",
    "fastapi",
    "uvicorn",
    "uvloop",
)
_SIZE: Final = 1024
_OPSET: Final = 17


def describe(command: str) -> dict[str, Any]:
    """Machine, versions, time and the command, for whoever reads the numbers later."""
    cpu = read_cpu()
    return {
        "command": command,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu.model,
        "cores": cpu.cores,
        "instruction_sets": list(cpu.instructions),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": versions(_LIBRARIES),
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "wrk": _wrk_version(),
    }


def versions(names: Sequence[str]) -> dict[str, str]:
    """Installed versions; what is not installed is left out."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _wrk_version() -> str:
    try:
        done = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False)
    except OSError:
        return "not installed"
    words = (done.stdout + done.stderr).split()
    return words[1] if len(words) > 1 else "unknown"


# --- the peak ---------------------------------------------------------------------------------------------------


def gemm_peaks(seconds: float = 1.0) -> dict[str, dict[str, float]]:
    """GOP/s (a multiply-add is two) by precision and library, on all usable cores."""
    cores = usable_cores()
    loops = {
        "fp32": {"numpy": _numpy_loop(), "onnxruntime": _ort_loop("fp32", cores), "torch": _torch_loop("fp32", cores)},
        "bf16": {"torch": _torch_loop("bf16", cores)},
        "int8": {"onnxruntime": _ort_loop("int8", cores), "torch": _torch_loop("int8", cores)},
    }
    return {
        precision: {name: round(_best_rate(loop, seconds), 1) for name, loop in each.items() if loop is not None}
        for precision, each in loops.items()
    }


def _best_rate(loop: Callable[[], object], seconds: float) -> float:
    """GOP/s of the fastest product within `seconds`: a peak is what the machine can, not what it did on average."""
    operations = 2 * _SIZE**3
    loop()
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        loop()
        best = max(best, operations / (time.perf_counter() - started))
    return best / 1e9


def _numpy_loop() -> Callable[[], object]:
    left, right = (np.random.default_rng(seed).random((_SIZE, _SIZE), dtype=np.float32) for seed in (0, 1))
    return lambda: left @ right


def _ort_loop(precision: str, cores: int) -> Callable[[], object] | None:
    """One MatMul or MatMulInteger as a model of its own, with constant weights as in a network."""
    try:
        from onnx import TensorProto, helper, numpy_helper
    except ModuleNotFoundError:
        return None
    import onnxruntime as ort

    generator = np.random.default_rng(0)
    left: np.ndarray[Any, Any] = generator.random((_SIZE, _SIZE), dtype=np.float32)
    right: np.ndarray[Any, Any] = generator.random((_SIZE, _SIZE), dtype=np.float32)
    kinds, op = (TensorProto.FLOAT, TensorProto.FLOAT), "MatMul"
    if precision == "int8":
        left, right = (left * 255).astype(np.uint8), (right * 255 - 128).astype(np.int8)
        kinds, op = (TensorProto.UINT8, TensorProto.INT32), "MatMulInteger"
    ends = [helper.make_tensor_value_info(n, kind, [_SIZE, _SIZE]) for n, kind in zip("xy", kinds, strict=True)]
    node = helper.make_node(op, ["x", "w"], ["y"])
    graph = helper.make_graph([node], "peak", ends[:1], ends[1:], [numpy_helper.from_array(right, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = cores
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": left})


def _torch_loop(precision: str, cores: int) -> Callable[[], object] | None:
    try:
        torch = importlib.import_module("torch")
    except ModuleNotFoundError:
        return None
    torch.set_num_threads(cores)
    left, right = torch.rand(_SIZE, _SIZE), torch.rand(_SIZE, _SIZE)
    if precision == "int8":
        left, right = (left * 127).to(torch.int8), (right * 127).to(torch.int8)
        return lambda: torch._int_mm(left, right)
    if precision == "bf16":
        left, right = left.bfloat16(), right.bfloat16()
    return lambda: torch.mm(left, right)


# --- what a text costs ------------------------------------------------------------------------------------------


def operations_per_text(model: Path, tokens: Sequence[int]) -> float:
    """Mean operations (a multiply-add is two) of the matrix products that texts of these lengths need.

    Counted from the fp32 graph: constant matrices once a token (`Gemm`, the pooled head, once a text), and the two
    products inside each attention. Needs the onnx package. Raises ValueError for a graph without products.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(model)).graph
    shapes = {initializer.name: numpy_helper.to_array(initializer).shape for initializer in graph.initializer}
    nodes = [(node.op_type, [shapes.get(name, ()) for name in node.input]) for node in graph.node]
    layers = sum(node.op_type in ("Attention", "MultiHeadAttention", "Softmax") for node in graph.node)
    return mean_operations(count_products(nodes), layers, tokens)


def count_products(nodes: Sequence[tuple[str, Sequence[tuple[int, ...]]]]) -> Mapping[str, int]:
    """Multiply-adds per token and per text, and the width, from (operator, shapes of its inputs) pairs."""
    per_token = per_text = width = 0
    for operator, shapes in nodes:
        sizes = [shape[0] * shape[1] for shape in shapes if len(shape) == 2 and min(shape) > 1]
        if operator == "Gemm":
            per_text += sum(sizes)
        elif operator in ("MatMul", "Attention") and sizes:
            per_token += sizes[0]
            width = width or min(shape[0] for shape in shapes if len(shape) == 2)
    if not per_token:
        raise ValueError("the graph holds no product with constant weights")
    return {"per_token": per_token, "per_text": per_text, "width": width}


def mean_operations(products: Mapping[str, int], layers: int, tokens: Sequence[int]) -> float:
    """Operations per text, from what `count_products` found."""
    attention = 2 * layers * products["width"]
    total = sum(products["per_token"] * n + products["per_text"] + attention * n * n for n in tokens)
    return 2 * total / len(tokens)


def run_together(functions: Sequence[Callable[[], object]]) -> float:
    """Run each on a thread of its own, all starting at once; seconds until the last is done. Raises what one raised."""
    gate = threading.Barrier(len(functions) + 1)
    failures: list[BaseException] = []

    def run(function: Callable[[], object]) -> None:
        gate.wait()
        try:
            function()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    gate.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return time.perf_counter() - started
