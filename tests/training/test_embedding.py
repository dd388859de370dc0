"""Tables in eight bits: near to float32, each row by itself, and the rest of the operator as onnxruntime has it."""

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from training.embedding import quantize_embedding, quantize_rows
from training.graph import MICROSOFT, rewrite

WORDS, WIDTH = 9000, 32  # just over what is worth it
RANDOM = np.random.default_rng(4)
TABLES = {
    "words": RANDOM.normal(size=(WORDS, WIDTH)).astype(np.float32),
    "positions": RANDOM.normal(size=(64, WIDTH)).astype(np.float32),
    "types": RANDOM.normal(size=(2, WIDTH)).astype(np.float32),
    "gain": RANDOM.normal(1, 0.1, WIDTH).astype(np.float32),
    "bias": RANDOM.normal(0, 0.1, WIDTH).astype(np.float32),
}


def embedding(inputs: list[str], outputs: list[str], used: dict[str, int]) -> onnx.ModelProto:
    """One EmbedLayerNormalization; `used` are the graph's outputs and their types."""
    node = helper.make_node("EmbedLayerNormalization", inputs, outputs, name="e", domain=MICROSOFT, epsilon=1e-12)
    return model(node, [name for name in ("ids", "kinds", "mask", "places") if name in inputs], used)


def gather(table: str) -> onnx.ModelProto:
    """A plain look-up."""
    return model(helper.make_node("Gather", [table, "ids"], ["y"], name="g"), ["ids"], {"y": TensorProto.FLOAT})


def model(node: onnx.NodeProto, inputs: list[str], used: dict[str, int]) -> onnx.ModelProto:
    """A graph of one node."""
    ends = [helper.make_tensor_value_info(name, TensorProto.INT32, ["batch", "sequence"]) for name in inputs]
    results = [helper.make_tensor_value_info(name, kind, None) for name, kind in used.items()]
    constants = [numpy_helper.from_array(value, name) for name, value in TABLES.items() if name in node.input]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(
        helper.make_graph([node], "g", ends, results, constants), opset_imports=opsets, ir_version=10
    )


def answers(graph: onnx.ModelProto, rows: NDArray[np.int32], mask: NDArray[np.int32]) -> list[Any]:
    """Every output of the graph, for word ids `rows`."""
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    places = np.broadcast_to(np.arange(rows.shape[1], dtype=np.int32)[::-1], rows.shape)
    feed = {"ids": rows, "kinds": rows % 2, "mask": mask, "places": places}
    return list(session.run(None, {entry.name: feed[entry.name] for entry in session.get_inputs()}))


def kinds(graph: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in graph.graph.node}


IDS = RANDOM.integers(0, WORDS, (3, 7), dtype=np.int32)
MASK = np.array([[1] * 7, [1] * 4 + [0] * 3, [1] + [0] * 6], dtype=np.int32)
NORM = ["words", "positions", "types", "gain", "bias"]
Y: dict[str, int] = {"y": TensorProto.FLOAT}
LENGTHS: dict[str, int] = {**Y, "lengths": TensorProto.INT32}


@pytest.mark.parametrize(
    ("inputs", "used"),
    [
        (["ids", "kinds", *NORM, "mask"], LENGTHS),
        (["ids", "kinds", *NORM, "mask"], Y),
        (["ids", "", "words", "positions", "", "gain", "bias", "mask"], LENGTHS),
        (["ids", "kinds", *NORM, "", "places"], Y),
    ],
)
def test_the_whole_operator_gives_almost_the_same(inputs: list[str], used: dict[str, int]) -> None:
    before = embedding(inputs, ["y", "lengths"], used)
    after = rewrite(before, quantize_embedding)
    assert "EmbedLayerNormalization" not in kinds(after)
    assert "words_int8" in {one.name for one in after.graph.initializer}
    exact, close = answers(before, IDS, MASK), answers(after, IDS, MASK)
    np.testing.assert_allclose(close[0], exact[0], atol=0.03)
    for expected, found in zip(exact[1:], close[1:], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_table_is_stored_in_a_quarter() -> None:
    before = gather("words")
    after = rewrite(before, quantize_embedding)
    assert after.ByteSize() < 0.3 * before.ByteSize()
    np.testing.assert_allclose(answers(after, IDS, MASK)[0], answers(before, IDS, MASK)[0], atol=0.02)


def test_a_row_is_the_same_in_any_company() -> None:
    after = rewrite(embedding(["ids", "kinds", *NORM, "mask"], ["y", "lengths"], LENGTHS), quantize_embedding)
    among = answers(after, IDS, MASK)
    alone = answers(after, IDS[1:2], MASK[1:2])
    assert np.array_equal(among[0][1], alone[0][0])
    assert among[1][1] == alone[1][0] == 4


def test_small_tables_and_other_uses_of_the_operator_stay() -> None:
    assert kinds(rewrite(gather("positions"), quantize_embedding)) == {"Gather"}
    total = embedding(["ids", "kinds", *NORM, "mask"], ["y", "lengths", "total"], {**Y, "total": TensorProto.FLOAT})
    assert kinds(rewrite(total, quantize_embedding)) == {"EmbedLayerNormalization"}
    unmasked = embedding(["ids", "kinds", *NORM], ["y", "lengths"], LENGTHS)
    assert kinds(rewrite(unmasked, quantize_embedding)) == {"EmbedLayerNormalization"}


def test_rows_have_a_scale_each_and_zero_rows_survive() -> None:
    rows, scale = quantize_rows(np.array([[1.0, -0.5], [-200.0, 100.0], [0.0, 0.0]], dtype=np.float32))
    assert rows.tolist() == [[127, -64], [-127, 64], [0, 0]]
    assert scale.shape == (3, 1)
    assert np.isfinite(scale).all()
