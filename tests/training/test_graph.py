"""Rewriting a fused graph without changing what it computes."""

import numpy as np
import onnx

from tests.training.block import answer, fused_block, inputs
from training.graph import GraphEditor, attribute, rewrite, split_skip_layer_norm


def test_no_rule_means_no_change() -> None:
    model = fused_block()
    rows = inputs(2, 5)
    assert [node.op_type for node in rewrite(model).graph.node] == [node.op_type for node in model.graph.node]
    assert np.array_equal(answer(rewrite(model), rows), answer(model, rows))


def test_skip_connections_are_sums_and_compute_the_same() -> None:
    model = fused_block()
    split = rewrite(model, split_skip_layer_norm)
    kinds = [node.op_type for node in split.graph.node]
    assert (kinds.count("SkipLayerNormalization"), kinds.count("Sum"), kinds.count("LayerNormalization")) == (0, 2, 3)
    rows = inputs(3, 7)
    np.testing.assert_allclose(answer(split, rows), answer(model, rows), atol=2e-6)


def test_a_graph_can_be_rewritten_twice() -> None:
    model = fused_block()
    last = model.graph.node.pop()
    once = rewrite(model, split_skip_layer_norm)
    once.graph.node.append(last)
    twice = rewrite(once, split_skip_layer_norm)
    names = [node.name for node in twice.graph.node if node.name]
    assert len(names) == len(set(names))
    rows = inputs(1, 4)
    np.testing.assert_allclose(answer(twice, rows), answer(fused_block(), rows), atol=2e-6)


def test_a_norm_with_a_second_result_is_left_alone() -> None:
    model = fused_block()
    model.graph.node[1].output.extend(["", "", "sum"])
    kept = [node.op_type for node in rewrite(model, split_skip_layer_norm).graph.node]
    assert kept.count("SkipLayerNormalization") == 1


def test_constants_are_stored_once_and_dropped_when_unused() -> None:
    editor = GraphEditor(fused_block())
    assert editor.scalar(1.0) == editor.scalar(1.0)
    assert editor.scalar(1.0) != editor.scalar(1, np.uint8)
    assert [initializer.name for initializer in editor.finish().graph.initializer] == []


def test_an_absent_attribute_has_its_default() -> None:
    node = onnx.helper.make_node("Softmax", ["x"], ["y"], axis=2)
    assert (attribute(node, "axis", -1), attribute(node, "other", 7)) == (2, 7)
