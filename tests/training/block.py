"""A fused transformer block as onnxruntime's optimizer writes it, small enough to build in a test."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

WIDTH = 16
HEADS = 2


def fused_block(seed: int = 0) -> onnx.ModelProto:
    """From x float32 (batch, sequence, 16) and mask int32 (batch, sequence) to y: attention, norm, GELU, two norms."""
    random = np.random.default_rng(seed)

    def weights(*shape: int) -> NDArray[np.float32]:
        return random.normal(0, 0.3, shape).astype(np.float32)

    constants = {
        "qkv": weights(WIDTH, 3 * WIDTH),
        "qkv_bias": weights(3 * WIDTH),
        "up": weights(WIDTH, 4 * WIDTH),
        "up_bias": weights(4 * WIDTH),
        "down": weights(4 * WIDTH, WIDTH),
        "down_bias": weights(WIDTH),
        "gain": 1 + weights(WIDTH),
        "shift": weights(WIDTH),
    }
    microsoft = {"domain": "com.microsoft"}
    nodes = [
        helper.make_node("Attention", ["x", "qkv", "qkv_bias", "mask"], ["a"], num_heads=HEADS, **microsoft),
        helper.make_node("SkipLayerNormalization", ["a", "x", "gain", "shift"], ["n"], epsilon=1e-12, **microsoft),
        helper.make_node("MatMul", ["n", "up"], ["u"]),
        helper.make_node("BiasGelu", ["u", "up_bias"], ["g"], **microsoft),
        helper.make_node("MatMul", ["g", "down"], ["d"]),
        helper.make_node(
            "SkipLayerNormalization", ["d", "n", "gain", "shift", "down_bias"], ["s"], epsilon=1e-12, **microsoft
        ),
        helper.make_node("LayerNormalization", ["s", "gain", "shift"], ["y"], axis=-1, epsilon=1e-5),
    ]
    shape = ["batch", "sequence", WIDTH]
    graph = helper.make_graph(
        nodes,
        "block",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("mask", TensorProto.INT32, ["batch", "sequence"]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def answer(
    model: onnx.ModelProto, rows: NDArray[np.float32], lengths: Sequence[int] | None = None
) -> NDArray[np.float32]:
    """What onnxruntime computes for `rows`, (batch, sequence, 16), of which the first `lengths` are no padding."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    ends = np.array(lengths or [rows.shape[1]] * len(rows))
    mask = (np.arange(rows.shape[1]) < ends[:, None]).astype(np.int32)
    result: NDArray[np.float32] = session.run(["y"], {"x": rows, "mask": mask})[0]
    return result


def inputs(batch: int, sequence: int, seed: int = 1) -> NDArray[np.float32]:
    """Random activations."""
    return np.random.default_rng(seed).normal(0, 1, (batch, sequence, WIDTH)).astype(np.float32)
