from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks import machine


def test_the_machine_is_described_without_paths() -> None:
    found = machine.describe("python -m benchmarks.bench")
    assert found["cores"] >= 1
    assert found["versions"]["onnxruntime"]
    assert "/" not in found["cpu"]


def test_versions_of_what_is_missing_are_left_out() -> None:
    assert machine.versions(["numpy", "no-such-thing"]).keys() == {"numpy"}


def test_every_precision_has_a_peak() -> None:
    peaks = machine.gemm_peaks(seconds=0)
    assert peaks.keys() == {"fp32", "bf16", "int8"}
    assert all(rate >= 0 for found in peaks.values() for rate in found.values())


def test_an_encoders_products_are_counted_per_token_and_per_text() -> None:
    nodes: list[tuple[str, list[tuple[int, ...]]]] = [
        ("Attention", [(), (384, 1152), (1152,)]),
        ("MatMul", [(), (384, 384)]),
        ("MatMul", [(), (384, 1536)]),
        ("MatMul", [(), (1536, 384)]),
        ("MatMul", [(), ()]),
        ("Add", [(), (384, 384)]),
        ("Gemm", [(), (2, 384), (2,)]),
    ]
    products = machine.count_products(nodes)
    assert products == {"per_token": 12 * 384 * 384, "per_text": 768, "width": 384}
    per_text = 2 * (10 * products["per_token"] + 768 + 2 * 384 * 100)
    assert machine.mean_operations(products, 1, [10]) == per_text


def test_a_graph_without_products_has_no_cost() -> None:
    with pytest.raises(ValueError, match="no product"):
        machine.count_products([("Add", [(3, 3)])])


def test_operations_are_counted_from_the_file(tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy"]
    weight = numpy_helper.from_array(np.ones((4, 4), dtype=np.float32), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weight])
    onnx.save(helper.make_model(graph), str(tmp_path / "model.onnx"))
    assert machine.operations_per_text(tmp_path / "model.onnx", [1, 3]) == 2 * 16 * 2


def test_functions_run_at_the_same_time() -> None:
    import threading

    meeting = threading.Barrier(2, timeout=5)
    assert machine.run_together([lambda: meeting.wait(), lambda: meeting.wait()]) >= 0


def test_what_one_of_them_raises_is_raised() -> None:
    def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        machine.run_together([fail, lambda: None])
