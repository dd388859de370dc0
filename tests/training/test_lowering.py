"""Graphs made smaller: close to float32, smaller on disk, and the same in any company where that is promised."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import transformers
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from rich.progress import Progress

from training.evaluate import softmax
from training.export import CANDIDATES, Export, export_model, random_feed
from training.lowering import PRODUCTS, STORAGE, lowered, store_weights
from training.provenance import ROOT
from training.sources import EncoderFolder

NAMES = ("input_ids", "attention_mask", "token_type_ids")
COMBINATIONS = [(products, "") for products in PRODUCTS] + [("", storage) for storage in STORAGE]
COMBINATIONS += [("int8", storage) for storage in STORAGE] + [("int8-static", "int8"), ("int8-blocks", "int8")]


QUIET = """
import logging
import sys
from training import lowering

lowering._block_quantizer()
sys.exit(bool(logging.getLogger().handlers) or logging.getLogger().level != logging.WARNING)
"""


def test_logging_stays_ours() -> None:
    """Onnxruntime's block quantizer sets up the root logger when it is imported."""
    assert subprocess.run([sys.executable, "-c", QUIET], check=False, cwd=ROOT).returncode == 0


def tables(width: int = 64) -> onnx.ModelProto:
    """Ids (rows,) -> a table's rows, through a matrix product and a transposed one."""
    random = np.random.default_rng(0)
    constants = {
        "table": random.normal(0, 1, (50, width)),
        "matrix": random.normal(0, 1, (width, width)),
        "turned": random.normal(0, 1, (8 * width, width)),
        "bias": random.normal(0, 1, (width,)),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("MatMul", ["rows", "matrix"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["sum"]),
        helper.make_node("Gemm", ["sum", "turned"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tables",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["rows_in"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows_in", 8 * width])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def answer(model: onnx.ModelProto | Path, feed: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    result: NDArray[np.float32] = session.run(None, feed)[0]
    return result


@pytest.mark.parametrize(("storage", "times", "error"), [("int8", 3.4, 0.02), ("fp16", 1.9, 1e-3), ("bf16", 1.9, 1e-2)])
def test_stored_weights_are_smaller_and_close(storage: str, times: float, error: float) -> None:
    model = tables()
    stored = store_weights(model, storage)
    assert stored.ByteSize() * times < model.ByteSize()
    feed = {"ids": np.arange(50)}
    exact = answer(model, feed)
    assert float(np.abs(answer(stored, feed) - exact).max()) < error * float(np.abs(exact).max())


def test_only_the_rows_of_a_table_that_are_asked_for_are_turned_back() -> None:
    stored = store_weights(tables(), "int8")
    gathered = [node for node in stored.graph.node if node.op_type == "Gather"]
    kinds = {each.name: each.data_type for each in stored.graph.initializer}
    assert [kinds[node.input[0]] for node in gathered] == [TensorProto.INT8, TensorProto.FLOAT]


def test_a_matrix_that_two_nodes_read_is_stored_once() -> None:
    model = tables()
    again = onnx.NodeProto()
    again.CopyFrom(model.graph.node[1])
    again.output[0] = "other"
    model.graph.node.append(again)
    assert [each.name for each in store_weights(model, "int8").graph.initializer].count("matrix_stored") == 1


def test_small_tensors_are_left_alone() -> None:
    model = tables(width=4)
    assert store_weights(model, "int8").graph.node == model.graph.node


@pytest.fixture(scope="module")
def exported(encoder: EncoderFolder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Export]:
    """Every combination, exported from one random classifier whose answers differ from text to text."""
    folder = tmp_path_factory.mktemp("lowering")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(encoder.path, num_labels=2)
    model.classifier.weight.data *= 20
    model.save_pretrained(folder / "model")
    transformers.AutoTokenizer.from_pretrained(encoder.path).save_pretrained(folder / "model")
    calibration = [random_feed(NAMES, (1, 4 + number), model.config, seed=number) for number in range(8)]
    proposals = [CANDIDATES[0], *(lowered(products, storage, calibration) for products, storage in COMBINATIONS)]
    with Progress(disable=True) as progress:
        return folder / "out", export_model(folder / "model", folder / "out", progress=progress, candidates=proposals)


def test_everything_can_be_built(exported: tuple[Path, Export]) -> None:
    _, export = exported
    assert export.failures == {}
    assert [variant.name for variant in export.variants][:2] == ["fp32", "int8"]
    assert {variant.name: variant.precision for variant in export.variants}["bf16-weights"] == "bf16"


@pytest.mark.parametrize(("products", "storage"), COMBINATIONS)
def test_it_answers_like_float32(exported: tuple[Path, Export], products: str, storage: str) -> None:
    folder, _ = exported
    config = transformers.AutoConfig.from_pretrained(folder.parent / "model")
    feed = dict(random_feed(NAMES, (5, 11), config, seed=4))
    difference = np.abs(
        softmax(answer(folder / lowered(products, storage, ()).file, feed)) - softmax(_exact(folder, feed))
    )
    assert float(difference.max()) < (0.15 if "int8" in (products + storage) else 0.02)


@pytest.mark.parametrize(("products", "storage"), [c for c in COMBINATIONS if c[0] != "int8-dynamic"])
def test_neighbours_change_nothing(exported: tuple[Path, Export], products: str, storage: str) -> None:
    folder, _ = exported
    config = transformers.AutoConfig.from_pretrained(folder.parent / "model")
    feed = dict(random_feed(NAMES, (6, 11), config, seed=9))
    path = folder / lowered(products, storage, ()).file
    alone = answer(path, {name: values[:1] for name, values in feed.items()})
    np.testing.assert_allclose(softmax(answer(path, feed))[:1], softmax(alone), atol=1e-3)


def _exact(folder: Path, feed: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
    return answer(folder / "model.onnx", feed)


def test_no_temporary_graph_is_left(exported: tuple[Path, Export]) -> None:
    folder, export = exported
    assert {path.name for path in folder.iterdir()} == {
        name for variant in export.variants for name in (*variant.files, "tokenizer.json")
    }
