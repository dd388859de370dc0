"""Embedding tables in eight bits, one scale per row, for a variant whose products are eight bits anyway.

The table is most of a small encoder: 47 of 59 MB where all else is int8. A row is looked up, never multiplied with
another, so a scale of its own costs nothing, and which rows a text needs does not depend on its neighbours.

    row = float32(table_int8[id]) * scale[id]        scale = max|row of the table| / 127
"""

from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

from training.graph import GraphEditor, attribute

# Bytes. Smaller tables (positions, token types) stay float32.
_WORTH_IT: Final = 1 << 20
_TINY: Final = 1e-12
_EPSILON: Final = 1e-12  # EmbedLayerNormalization's default


def quantize_embedding(editor: GraphEditor, node: onnx.NodeProto) -> bool:
    """Replace a Gather from a large constant table, or onnxruntime's EmbedLayerNormalization around one."""
    if node.op_type == "Gather" and attribute(node, "axis", 0) == 0:
        return _is_large(editor, node.input[0]) and bool(_look_up(editor, node.input[0], node.input[1], node.output[0]))
    if node.op_type == "EmbedLayerNormalization" and _is_large(editor, node.input[2]) and _can_unfold(editor, node):
        _embed(editor, node)
        return True
    return False


def quantize_rows(table: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 rows of shape (words, width) and one float32 scale per row, (words, 1)."""
    scale = np.maximum(np.abs(table).max(axis=1, keepdims=True), _TINY) / 127
    return np.clip(np.rint(table / scale), -127, 127).astype(np.int8), scale.astype(np.float32)


def _is_large(editor: GraphEditor, name: str) -> bool:
    table = editor.constants.get(name)
    return table is not None and table.ndim == 2 and table.dtype == np.float32 and table.nbytes >= _WORTH_IT


def _can_unfold(editor: GraphEditor, node: onnx.NodeProto) -> bool:
    """Whether nobody uses the sum before normalization, and lengths can be had from a mask if somebody wants them."""
    graph = editor.model.graph
    used = {name for other in graph.node for name in other.input if name} | {output.name for output in graph.output}
    lengths, total = (*node.output[1:], "", "")[:2]
    return total not in used and (lengths not in used or _mask(node) != "")


def _mask(node: onnx.NodeProto) -> str:
    return node.input[7] if len(node.input) > 7 else ""


def _look_up(editor: GraphEditor, table: str, ids: str, output: str = "") -> str:
    """float32 rows of the quantized `table`, of shape (*ids, width)."""
    rows, scale = quantize_rows(editor.constants[table])
    found = editor.emit("Gather", [editor.constant(f"{table}_int8", rows), ids])
    scales = editor.emit("Gather", [editor.constant(f"{table}_scale", scale), ids])
    return editor.emit("Mul", [editor.emit("Cast", [found], to=onnx.TensorProto.FLOAT), scales], output)


def _embed(editor: GraphEditor, node: onnx.NodeProto) -> None:
    """Words, positions and, where there are any, token types, added up and normalized; and each row's length.

    Source: EmbedLayerNormalization in onnxruntime's ContribOperators.md; inputs are ids, token types, three tables,
    gain, bias, mask and position ids.
    """
    ids, types, words, positions, type_table, gain, bias = node.input[:7]
    parts = [_look_up(editor, words, ids)]
    if types:
        parts.append(editor.emit("Gather", [type_table, types]))
    if len(node.input) > 8 and node.input[8]:
        parts.append(editor.emit("Gather", [positions, node.input[8]]))
    else:
        start, length = _vector(editor, 0), editor.emit("Gather", [editor.emit("Shape", [ids]), _vector(editor, 1)])
        parts.append(editor.emit("Slice", [positions, start, length]))
    total = editor.emit("Sum", parts)
    epsilon = attribute(node, "epsilon", _EPSILON)
    editor.emit("LayerNormalization", [total, gain, bias], node.output[0], axis=-1, epsilon=epsilon)
    if _mask(node) and node.output[1:2]:
        editor.emit("ReduceSum", [_mask(node), _vector(editor, 1)], node.output[1], keepdims=0)


def _vector(editor: GraphEditor, value: int) -> str:
    return editor.constant(f"slipway_int64_vector_{value}", np.array([value], dtype=np.int64))
