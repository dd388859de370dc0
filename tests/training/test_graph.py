"""Rewriting a fused graph without changing what it computes."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from tests.training.block import answer, fused_block, inputs
from training.graph import GraphEditor, attribute, data_of, rewrite, save_graph, split_skip_layer_norm


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


def _doubled(width: int) -> onnx.ModelProto:
    """Y = x + 1 over `width` columns."""
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, width]) for name in "xy"]
    ones = onnx.numpy_helper.from_array(np.ones((1, width), dtype=np.float32), "ones")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "ones"], ["y"])], "g", ends[:1], ends[1:], [ones]
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=10)


def test_weights_are_saved_beside_the_graph_and_read_with_it(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save_graph(_doubled(1024), path)
    save_graph(_doubled(512), path)  # once more: the file is replaced, not appended to
    assert data_of(path).stat().st_size == 512 * 4
    assert path.stat().st_size < 1024
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert (session.run(None, {"x": np.zeros((1, 512), dtype=np.float32)})[0] == 1).all()


def test_a_graph_of_small_weights_is_one_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save_graph(_doubled(1024), path)
    save_graph(_doubled(8), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]
