"""int8 whose answers do not depend on the batch: one activation scale per row, from operators onnxruntime has.

The usual dynamic quantization takes one scale for a whole activation tensor, so the largest value of any neighbour
decides how finely a text is rounded. Here every token has its own scale (vector-wise quantization: Dettmers et al.
2022, arXiv:2208.07339): nothing of a neighbour enters a row. Weights have one scale per column.

    scale = max|row| / 127                  float32 (rows, 1)
    q     = rint(row / scale) + 128         uint8: QuantizeLinear with one block a row, rounding half to even
    y     = (q - 128) @ W_int8 * column_scale    int32 products, exact
    out   = y * scale                       so a row of zeros, whose scale is zero, gives zeros

After a GELU, whose values never lie below -0.17, zero is 32 instead: 223 of the 256 steps are for what is positive.
"""

from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

from training.embedding import quantize_embedding
from training.graph import MICROSOFT, GraphEditor, attribute, rewrite, split_skip_layer_norm

# The minimum of x * Phi(x) is -0.16997, at x = -0.7518; 32 steps of a row's scale reach it, 223 are left for the rest.
_GELU_REACH: Final = 0.17
_GELU_ZERO: Final = 32
_GELUS: Final = ("BiasGelu", "Gelu")
# Column scales of all-zero weights, and a divisor under which every scale rounds to nothing.
_TINY: Final = 1e-12
_VAST: Final = 1e30
# The first opset with Attention; QuantizeLinear takes a scale per block since 21 (the ONNX operator reference).
_OPSET: Final = 23


def quantize_rowwise(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace every MatMul by constant weights, the projections of every fused Attention, large embedding tables, and
    layer normalizations.

    `model` is float32, fused (onnxruntime's Attention, SkipLayerNormalization, BiasGelu) or plain.
    Raises ValueError when it holds nothing to quantize, or its opset lacks the operators.
    """
    opset = next((entry.version for entry in model.opset_import if not entry.domain), 0)
    if opset < _OPSET:
        raise ValueError(f"the graph is of opset {opset}, and rows are quantized with operators of {_OPSET}")
    quantizer = _RowQuantizer()
    rules = (quantizer.matmul, quantizer.attention, quantize_embedding, split_skip_layer_norm)
    result = rewrite(model, *rules)
    if not quantizer.rows:
        raise ValueError("the graph holds no matrix product with constant weights")
    return result


class _RowQuantizer:
    """The rewriting rules. `rows` remembers quantized activations: a tensor used three times is quantized once."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[str, str]] = {}
        self._masks: dict[str, str] = {}

    def matmul(self, editor: GraphEditor, node: onnx.NodeProto) -> bool:
        """`x @ W` with constant two-dimensional W."""
        weights = editor.constants.get(node.input[1]) if node.op_type == "MatMul" else None
        if weights is None or weights.ndim != 2:
            return False
        self._product(editor, node.input[0], weights, node.input[1], node.output[0])
        return True

    def attention(self, editor: GraphEditor, node: onnx.NodeProto) -> bool:
        """Onnxruntime's Attention with a raw mask: quantized projections, and the standard operator between them.

        The bias of the keys adds the same to every score of a query, which softmax does not see; that of the values
        comes out as it went in, as the shares of the keys add up to one.
        """
        weights = editor.constants.get(node.input[1]) if node.op_type == "Attention" else None
        bias = editor.constants.get(node.input[2]) if len(node.input) == 4 else None
        if weights is None or bias is None or attribute(node, "unidirectional", 0):
            return False
        heads, third = attribute(node, "num_heads", 0), weights.shape[1] // 3
        query, key, value = (
            self._product(editor, node.input[0], weights[:, start : start + third], f"{node.input[1]}_{part}")
            for part, start in zip("qkv", range(0, 3 * third, third), strict=True)
        )
        query = editor.emit("Add", [query, editor.constant(f"{node.input[2]}_q", bias[:third])])
        mixed = editor.emit(
            "Attention", [query, key, value, self._mask(editor, node.input[3])], q_num_heads=heads, kv_num_heads=heads
        )
        editor.emit("Add", [mixed, editor.constant(f"{node.input[2]}_v", bias[2 * third :])], node.output[0])
        return True

    def _mask(self, editor: GraphEditor, raw: str) -> str:
        """The mask of shape (batch, keys) as the operator wants it: bool (batch, 1, queries, keys)."""
        if raw not in self._masks:
            # Twice a key's 1 is more than any query's 0 or 1, twice its 0 is not: every query sees the same keys.
            doubled = editor.emit("Mul", [raw, editor.scalar(2, np.int32)])
            keys, queries = (
                editor.emit("Unsqueeze", [name, editor.constant(f"slipway_axes_1_{axis}", np.array([1, axis]))])
                for name, axis in ((doubled, 2), (raw, 3))
            )
            self._masks[raw] = editor.emit("Greater", [keys, queries])
        return self._masks[raw]

    def _product(
        self, editor: GraphEditor, rows: str, weights: NDArray[np.float32], name: str, output: str = ""
    ) -> str:
        """`rows @ weights` through int8; returns the name of the float32 result."""
        positive = editor.producers.get(rows) in _GELUS
        quantized, scale = self._quantize_rows(editor, rows, weights.shape[0], positive=positive)
        columns, column_scale = quantize_columns(weights)
        product = editor.emit(
            "MatMulIntegerToFloat",
            [
                quantized,
                editor.constant(f"{name}_int8", columns),
                editor.scalar(1.0),
                editor.constant(f"{name}_scale", column_scale),
                editor.scalar(_zero_point(positive), np.uint8),
            ],
            domain=MICROSOFT,
        )
        return editor.emit("Mul", [product, scale], output)

    def _quantize_rows(self, editor: GraphEditor, rows: str, width: int, *, positive: bool) -> tuple[str, str]:
        """uint8 rows and their float32 scale, (..., 1)."""
        if rows in self.rows:
            return self.rows[rows]
        zero = _zero_point(positive)
        reach = rows if positive else editor.emit("Abs", [rows])
        most = editor.emit("ReduceMax", [reach, editor.constant("slipway_last_axis", np.array([-1]))], keepdims=1)
        scale = editor.emit("Mul", [most, editor.scalar(1 / (255 - zero if positive else 127))])
        if positive:
            scale = editor.emit("Max", [scale, editor.scalar(_GELU_REACH / zero)])
        # Zero points in the shape of the scales, in one node: whatever is divided by this is nothing.
        zeros = editor.emit("QuantizeLinear", [scale, editor.scalar(_VAST), editor.scalar(zero, np.uint8)])
        self.rows[rows] = editor.emit("QuantizeLinear", [rows, scale, zeros], axis=-1, block_size=width), scale
        return self.rows[rows]


def _zero_point(positive: bool) -> int:
    return _GELU_ZERO if positive else 128


def quantize_columns(weights: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 weights of shape (inputs, outputs) and one float32 scale per output."""
    scale = np.maximum(np.abs(weights).max(axis=0), _TINY) / 127
    return np.clip(np.rint(weights / scale), -127, 127).astype(np.int8), scale.astype(np.float32)
