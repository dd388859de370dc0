"""From an exported graph to a smaller one: how its products are computed and how its weights are stored.

Products (one of them, or float32 as exported):

    int8            per-token activation scales (training/rowwise.py), what `slipway train` publishes
    int8-static     scales fixed by calibration texts, QuantizeLinear/DequantizeLinear around every product
    int8-dynamic    onnxruntime's default: one activation scale per tensor, taken at run time
    int8-blocks     onnxruntime's MatMulNBits: 8-bit weights in blocks of 32
    fp16-arithmetic every operator in half precision

Storage of whatever float32 tensors are left after that: `int8`, `fp16` or `bf16`. A matrix is turned back into float32
when the session is made, so it costs nothing per text and nothing of a neighbour can enter; an embedding table stays
small in memory too, and only the rows a text needs are turned back.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16

from training.export import Candidate, Sources, check_loads, fuse
from training.graph import GraphEditor, attribute, rewrite, save_graph, split_skip_layer_norm
from training.rowwise import quantize_columns, quantize_rowwise

Feed = Mapping[str, NDArray[np.int64]]

PRODUCTS: Final = ("int8", "int8-static", "int8-dynamic", "int8-blocks", "fp16-arithmetic")
STORAGE: Final = ("int8", "fp16", "bf16")
_HALVES: Final = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
# Below this a tensor is not worth a node.
_SMALLEST: Final = 1024
_BLOCK: Final = 32


def lowered(products: str, storage: str, calibration: Sequence[Feed]) -> Candidate:
    """A variant to propose: `products` of PRODUCTS or "", `storage` of STORAGE or "".

    `calibration` holds one text each, as the graph's inputs; only `int8-static` looks at it.
    """
    name = "-".join(part for part in (products, f"{storage}-weights" if storage else "") if part)
    precision = "int8" if "int8" in name else "fp16" if "fp16" in name else "bf16"

    def build(sources: Sources, path: Path) -> str:
        model = _with_products(products, sources, path, calibration)
        if storage:
            model = store_weights(model, storage)
        save_graph(model, path)
        check_loads(path)
        return name

    return Candidate(name, f"model.{name}.onnx", "onnx", precision, build)  # type: ignore[arg-type]


def store_weights(model: onnx.ModelProto, storage: str) -> onnx.ModelProto:
    """Store every large float32 constant as `int8` (one scale per column, or per row of a table), `fp16` or `bf16`."""
    return rewrite(model, _Store(storage))


class _Store:
    """The rewriting rule. `done` remembers the float32 name of a tensor that several nodes use."""

    def __init__(self, storage: str) -> None:
        self._storage = storage
        self._done: dict[str, str] = {}

    def __call__(self, editor: GraphEditor, node: onnx.NodeProto) -> bool:
        """Keep the node, reading smaller tensors."""
        large = [name for name in node.input if _is_large(editor.constants.get(name))]
        if not large:
            return False
        if node.op_type == "Gather" and large == [node.input[0]] and attribute(node, "axis", 0) == 0:
            self._table(editor, node)
            return True
        kept = onnx.NodeProto()
        kept.CopyFrom(node)
        by_row = node.op_type == "Gemm" and bool(attribute(node, "transB", 0))
        for place, name in enumerate(node.input):
            if name in large:
                kept.input[place] = self._matrix(editor, name, by_row=by_row)
        editor.keep(kept)
        return True

    def _matrix(self, editor: GraphEditor, name: str, *, by_row: bool) -> str:
        """The float32 name of a tensor that is turned back as a whole, which the session does once."""
        if name not in self._done:
            values = editor.constants[name]
            if self._storage in _HALVES:
                small = editor.constant(f"{name}_{self._storage}", _half(values, self._storage))
                self._done[name] = editor.emit("Cast", [small], to=TensorProto.FLOAT)
            else:
                integers, scale = _integers(values, by_row=by_row)
                small = editor.emit("Cast", [editor.constant(f"{name}_stored", integers)], to=TensorProto.FLOAT)
                self._done[name] = editor.emit("Mul", [small, editor.constant(f"{name}_stored_scale", scale)])
        return self._done[name]

    def _table(self, editor: GraphEditor, node: onnx.NodeProto) -> None:
        """Rows first, float32 afterwards."""
        name, places = node.input
        if self._storage in _HALVES:
            small = editor.constant(f"{name}_{self._storage}", _half(editor.constants[name], self._storage))
            editor.emit("Cast", [editor.emit("Gather", [small, places])], node.output[0], to=TensorProto.FLOAT)
            return
        integers, scale = _integers(editor.constants[name], by_row=True)
        rows = editor.emit("Gather", [editor.constant(f"{name}_stored", integers), places])
        scales = editor.emit("Gather", [editor.constant(f"{name}_stored_scale", scale), places])
        editor.emit("Mul", [editor.emit("Cast", [rows], to=TensorProto.FLOAT), scales], node.output[0])


def _is_large(values: NDArray[Any] | None) -> bool:
    return values is not None and values.dtype == np.float32 and values.ndim == 2 and values.size >= _SMALLEST


def _half(values: NDArray[np.float32], storage: str) -> NDArray[Any]:
    return values.astype(helper.tensor_dtype_to_np_dtype(_HALVES[storage]))


def _integers(values: NDArray[np.float32], *, by_row: bool) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8 values and scales that multiply them back, (rows, 1) or (columns,)."""
    if not by_row:
        return quantize_columns(values)
    columns, scale = quantize_columns(values.T)
    return np.ascontiguousarray(columns.T), scale[:, None]


def _with_products(products: str, sources: Sources, path: Path, calibration: Sequence[Feed]) -> onnx.ModelProto:
    builders: Mapping[str, Callable[[], onnx.ModelProto]] = {
        "": lambda: rewrite(_fused(sources), split_skip_layer_norm),
        "int8": lambda: quantize_rowwise(_fused(sources)),
        "int8-static": lambda: _static(sources, path, calibration),
        "int8-dynamic": lambda: _dynamic(sources, path),
        "int8-blocks": lambda: _blocks(sources),
        "fp16-arithmetic": lambda: convert_float_to_float16(onnx.load(sources.plain), keep_io_types=True),
    }
    return builders[products]()


def _fused(sources: Sources) -> onnx.ModelProto:
    """Attention and GELU fused where that matches every layer; embeddings apart, so that their tables can be stored."""
    path = sources.plain.with_name("open.onnx")
    if (
        not path.exists()
        and fuse(sources.newer, path, sources.config, embeddings=False) < sources.config.num_hidden_layers
    ):
        path.write_bytes(sources.newer.read_bytes())
    return onnx.load(path)


def _static(sources: Sources, path: Path, calibration: Sequence[Feed]) -> onnx.ModelProto:
    quantize_static(
        str(sources.prepared),
        str(path),
        _Reader(calibration),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True},
    )
    return onnx.load(path)


def _dynamic(sources: Sources, path: Path) -> onnx.ModelProto:
    quantize_dynamic(str(sources.prepared), str(path), per_channel=True, weight_type=QuantType.QInt8)
    return onnx.load(path)


def _blocks(sources: Sources) -> onnx.ModelProto:
    quantizer = _block_quantizer()(
        onnx.load(sources.plain), block_size=_BLOCK, is_symmetric=True, accuracy_level=4, bits=8
    )
    quantizer.process()
    return quantizer.model.model


def _block_quantizer() -> Any:
    """Onnxruntime's class. Importing it sets up logging for the whole process: that is put back."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    root.handlers[:] = handlers
    root.setLevel(level)
    return MatMulNBitsQuantizer


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Calibration texts, one at a time: they need no padding."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> dict[str, NDArray[np.int64]] | None:
        """The inputs of one text, None after the last."""
        feed = next(self._feeds, None)
        return None if feed is None else dict(feed)
