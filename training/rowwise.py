"""int8 whose answers do not depend on the batch: one activation scale per row, from operators onnxruntime has.

The usual dynamic quantization takes one scale for a whole activation tensor, so the largest value of any neighbour
decides how finely a text is rounded. Here every token has its own scale (vector-wise quantization: Dettmers et al.
2022, arXiv:2208.07339): nothing of a neighbour enters a row. Weights have one scale per column.

    scale = max|row| / 127                       float32 (rows, 1)
    q     = uint8(row / scale + 128.5)           zero point 128; the cast truncates, so this rounds half up
    y     = (q - 128) @ W_int8 * column_scale    int32 products, exact
    out   = y * scale

After a GELU, whose values never lie below -0.17, the row is shifted to be non-negative instead and uses all eight bits;
the shift's share of the product is a constant per column.
"""

from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from training.embedding import quantize_embedding
from training.graph import MICROSOFT, GraphEditor, attribute, rewrite, unfold_layer_norm

# The minimum of x * Phi(x) is -0.16997, at x = -0.7518.
_GELU_SHIFT: Final = 0.17
_GELUS: Final = ("BiasGelu", "Gelu")
# A row of zeros, which padding can give, must not divide by zero.
_TINY: Final = 1e-12


def quantize_rowwise(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace every MatMul by constant weights, the projections of every fused Attention, large embedding tables, and
    layer normalizations.

    `model` is float32, fused (onnxruntime's Attention, SkipLayerNormalization, BiasGelu) or plain.
    Raises ValueError when it holds nothing to quantize.
    """
    quantizer = _RowQuantizer()
    result = rewrite(model, quantizer.matmul, quantizer.attention, quantize_embedding, unfold_layer_norm)
    if not quantizer.rows:
        raise ValueError("the graph holds no matrix product with constant weights")
    return result


class _RowQuantizer:
    """The rewriting rules. `rows` remembers quantized activations: a tensor used three times is quantized once."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[str, str]] = {}

    def matmul(self, editor: GraphEditor, node: onnx.NodeProto) -> bool:
        """`x @ W` with constant two-dimensional W."""
        weights = editor.constants.get(node.input[1]) if node.op_type == "MatMul" else None
        if weights is None or weights.ndim != 2:
            return False
        self._product(editor, node.input[0], weights, node.input[1], node.output[0])
        return True

    def attention(self, editor: GraphEditor, node: onnx.NodeProto) -> bool:
        """Onnxruntime's Attention is its three projections and MultiHeadAttention: split it and quantize the former."""
        weights = editor.constants.get(node.input[1]) if node.op_type == "Attention" else None
        if weights is None or any(node.input[4:]) or attribute(node, "unidirectional", 0):
            return False
        width = weights.shape[1] // 3
        parts = [
            self._product(editor, node.input[0], weights[:, start : start + width], f"{node.input[1]}_{part}")
            for part, start in zip("qkv", range(0, 3 * width, width), strict=True)
        ]
        editor.emit(
            "MultiHeadAttention",
            [*parts, node.input[2], node.input[3]],
            node.output[0],
            domain=MICROSOFT,
            num_heads=attribute(node, "num_heads", 0),
        )
        return True

    def _product(
        self, editor: GraphEditor, rows: str, weights: NDArray[np.float32], name: str, output: str = ""
    ) -> str:
        """`rows @ weights` through int8; returns the name of the float32 result."""
        shifted = editor.producers.get(rows) in _GELUS
        quantized, scale = self._quantize_rows(editor, rows, shifted=shifted)
        columns, column_scale = quantize_columns(weights)
        product = editor.emit(
            "MatMulIntegerToFloat",
            [
                quantized,
                editor.constant(f"{name}_int8", columns),
                editor.scalar(1.0),
                editor.constant(f"{name}_scale", column_scale),
                editor.scalar(0 if shifted else 128, np.uint8),
            ],
            domain=MICROSOFT,
        )
        if not shifted:
            return editor.emit("Mul", [product, scale], output)
        share = -_GELU_SHIFT * columns.sum(axis=0, dtype=np.int64) * column_scale
        correction = editor.constant(f"{name}_shift", share.astype(np.float32))
        return editor.emit("Add", [editor.emit("Mul", [product, scale]), correction], output)

    def _quantize_rows(self, editor: GraphEditor, rows: str, *, shifted: bool) -> tuple[str, str]:
        """uint8 rows and their float32 scale, (..., 1)."""
        if rows in self.rows:
            return self.rows[rows]
        if shifted:
            most = editor.emit("ReduceMax", [rows], axes=[-1], keepdims=1)
            reach = editor.emit("Add", [most, editor.scalar(_GELU_SHIFT + _TINY)])
            scale = editor.emit("Mul", [reach, editor.scalar(1 / 255)])
            inverse = editor.emit("Div", [editor.scalar(1.0), scale])
            zero = editor.emit("Add", [editor.emit("Mul", [inverse, editor.scalar(_GELU_SHIFT)]), editor.scalar(0.5)])
        else:
            most = editor.emit("ReduceMax", [editor.emit("Abs", [rows])], axes=[-1], keepdims=1)
            reach = editor.emit("Add", [most, editor.scalar(_TINY)])
            scale = editor.emit("Mul", [reach, editor.scalar(1 / 127)])
            inverse = editor.emit("Div", [editor.scalar(1.0), scale])
            zero = editor.scalar(128.5)
        moved = editor.emit("Add", [editor.emit("Mul", [rows, inverse]), zero])
        self.rows[rows] = editor.emit("Cast", [moved], to=TensorProto.UINT8), scale
        return self.rows[rows]


def quantize_columns(weights: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 weights of shape (inputs, outputs) and one float32 scale per output."""
    scale = np.maximum(np.abs(weights).max(axis=0), _TINY) / 127
    return np.clip(np.rint(weights / scale), -127, 127).astype(np.int8), scale.astype(np.float32)
