"""Per-row int8: near to float32, and the same in any company, to the bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from tests.training.block import answer, fused_block, inputs
from training.rowwise import quantize_columns, quantize_rowwise

BLOCK = fused_block()
QUANTIZED = quantize_rowwise(BLOCK)


def test_every_product_with_weights_is_int8() -> None:
    kinds = [node.op_type for node in QUANTIZED.graph.node]
    assert kinds.count("MatMulIntegerToFloat") == 5
    assert [node.domain for node in QUANTIZED.graph.node if node.op_type == "Attention"] == [""]
    assert "MatMul" not in kinds


def test_an_activation_used_three_times_is_quantized_once() -> None:
    assert [node.op_type for node in QUANTIZED.graph.node].count("ReduceMax") == 3


def test_it_stays_close_to_float32() -> None:
    rows = inputs(4, 9)
    exact = answer(BLOCK, rows)
    assert float(np.abs(answer(QUANTIZED, rows) - exact).mean()) < 0.02 * float(np.abs(exact).mean())


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 12), st.floats(1, 1e4))
def test_a_neighbour_changes_nothing_however_large_its_values(batch: int, sequence: int, factor: float) -> None:
    rows = inputs(1 + batch, sequence, seed=batch)
    rows[1:] *= factor
    among = answer(QUANTIZED, rows)[0]
    assert np.array_equal(among, answer(QUANTIZED, rows[:1])[0])


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(0, 9), st.floats(0, 1e4))
def test_padding_changes_nothing_whatever_it_holds(length: int, padding: int, filler: float) -> None:
    rows = inputs(2, length + padding, seed=length)
    rows[0, length:] = filler
    padded = answer(QUANTIZED, rows, [length, length + padding])[0, :length]
    assert np.array_equal(padded, answer(QUANTIZED, rows[:1, :length])[0])


def test_an_older_opset_is_refused() -> None:
    old = fused_block()
    old.opset_import[0].version = 17
    with pytest.raises(ValueError, match="opset 17"):
        quantize_rowwise(old)


def test_a_row_of_zeros_gives_finite_numbers() -> None:
    assert np.isfinite(answer(QUANTIZED, np.zeros((1, 3, 16), dtype=np.float32))).all()


def test_weights_have_a_scale_per_column_and_zero_columns_survive() -> None:
    weights = np.array([[1.0, -200.0, 0.0], [-0.5, 100.0, 0.0]], dtype=np.float32)
    columns, scale = quantize_columns(weights)
    assert columns.tolist() == [[127, -127, 0], [-64, 64, 0]]
    np.testing.assert_allclose(columns * scale, weights, rtol=0.01)


def test_a_graph_without_weights_is_refused() -> None:
    empty = helper.make_model(
        helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [], []),
        opset_imports=[helper.make_opsetid("", 23)],
    )
    with pytest.raises(ValueError, match="no matrix product"):
        quantize_rowwise(empty)
