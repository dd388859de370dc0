"""Every candidate answers as torch does, at shapes it was not traced with; what cannot be built is told, not hidden."""

import errno
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import transformers
from rich.progress import Progress
from tokenizers import Tokenizer

import training.export
from tests.training.gate_fixtures import Tiny, tiny_model
from training.classifier import load_model
from training.errors import TrainingError
from training.evaluate import softmax
from training.export import Candidate, Export, Sources, expected_warnings, export_model, random_feed
from training.graph import data_of
from training.quiet import quiet


@pytest.fixture(scope="module")
def model() -> Tiny:
    return tiny_model()


def exported(model_dir: Path, folder: Path) -> Export:
    with quiet(), Progress(disable=True) as progress:
        return export_model(model_dir, folder, progress=progress)


def test_every_candidate_is_built_from_a_bert(model: Tiny) -> None:
    assert [variant.name for variant in model.export.variants] == ["fp32", "torchscript", "int8", "int8-dynamic"]
    assert model.export.failures == {}
    assert [spec.name for spec in model.export.inputs] == ["input_ids", "attention_mask", "token_type_ids"]
    assert model.export.outputs[0].shape == ("batch", 2)
    assert all((model.export_dir / variant.file).stat().st_size > 0 for variant in model.export.variants)


def test_weights_lie_beside_the_graph_and_nothing_else_does(model: Tiny) -> None:
    for variant in model.export.variants:
        if variant.format == "onnx":
            assert variant.data == f"{variant.file}.data"
            graph = onnx.load(model.export_dir / variant.file, load_external_data=False).graph
            named = {entry.value for one in graph.initializer for entry in one.external_data if entry.key == "location"}
            assert named == {variant.data}
        else:
            assert variant.data is None


def test_attention_is_matched_in_every_layer(model: Tiny) -> None:
    assert "attention matched in 2 of 2 layers" in model.export.notes[0]


def test_both_axes_of_the_graph_are_dynamic(model: Tiny) -> None:
    graph = onnx.load(model.export_dir / "model.onnx").graph
    for entry in graph.input:
        assert [axis.dim_param for axis in entry.type.tensor_type.shape.dim] == ["batch", "sequence"]
        assert entry.type.tensor_type.elem_type == onnx.TensorProto.INT64
    assert graph.output[0].name == "logits"


@pytest.mark.parametrize("shape", [(1, 2), (1, 64), (3, 5), (32, 40)])
def test_onnx_and_torchscript_answer_as_torch_at_any_shape(model: Tiny, shape: tuple[int, int]) -> None:
    with quiet():
        reference = load_model(model.model_dir)
    names = [spec.name for spec in model.export.inputs]
    feed = random_feed(names, shape, reference.config, seed=7)
    tensors = {name: torch.from_numpy(array) for name, array in feed.items()}
    session = ort.InferenceSession(model.export_dir / "model.onnx", providers=["CPUExecutionProvider"])
    with torch.inference_mode(), expected_warnings():
        expected = softmax(reference(**tensors).logits.numpy())
        traced = torch.jit.load(model.export_dir / "model.ts")  # type: ignore[no-untyped-call]
        by_torchscript = softmax(traced(*tensors.values()).numpy())
    by_onnx = softmax(session.run(["logits"], dict(feed))[0])
    np.testing.assert_allclose(by_onnx, expected, atol=5e-5)  # the gate allows 1e-4
    np.testing.assert_allclose(by_torchscript, expected, atol=1e-5)


def test_the_tokenizer_neither_pads_nor_cuts(model: Tiny) -> None:
    tokenizer = Tokenizer.from_file(str(model.export_dir / "tokenizer.json"))
    assert tokenizer.padding is None
    assert tokenizer.truncation is None
    assert len(tokenizer.encode("superb " * 100).ids) == 102
    assert model.export.preprocessing.pad_token_id == 0


def test_random_inputs_have_padding_and_no_other_padding_tokens() -> None:
    config = transformers.RobertaConfig(vocab_size=7, pad_token_id=1)
    feed = random_feed(("input_ids", "attention_mask"), (6, 9), config)
    padded = feed["attention_mask"] == 0
    assert padded.any()
    assert (feed["input_ids"][padded] == 1).all()
    assert (feed["input_ids"][~padded] != 1).all()
    assert feed["input_ids"].max() < 7


def small(kind: str, folder: Path) -> Path:
    """A random classifier of another family with the tiny tokenizer."""
    shutil.copytree(tiny_model().model_dir, folder)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        if kind == "distilbert":
            config = transformers.DistilBertConfig(vocab_size=200, dim=32, n_layers=2, n_heads=2, hidden_dim=64)
            made = transformers.DistilBertForSequenceClassification(config)
        else:
            config = transformers.RobertaConfig(
                vocab_size=200,
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=64,
                max_position_embeddings=70,
                pad_token_id=0,
                type_vocab_size=1,
            )
            made = transformers.RobertaForSequenceClassification(config)
        made.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["distilbert", "roberta"])
def test_other_encoders_get_a_graph_too_with_the_inputs_they_have(tmp_path: Path, kind: str) -> None:
    export = exported(small(kind, tmp_path / "model"), tmp_path / "out")
    assert [spec.name for spec in export.inputs] == ["input_ids", "attention_mask"]
    assert {"fp32", "torchscript"} <= {variant.name for variant in export.variants}


def _broken(_: Sources, path: Path) -> str:
    path.write_bytes(b"half")
    data_of(path).write_bytes(b"half")
    raise RuntimeError("the quantizer gave up")


def test_a_candidate_that_cannot_be_built_is_a_reason_and_not_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Tiny
) -> None:
    candidates = (training.export.CANDIDATES[0], Candidate("fast", "model.fast.onnx", "onnx", "int8", _broken))
    monkeypatch.setattr(training.export, "CANDIDATES", candidates)
    export = exported(model.model_dir, tmp_path / "out")
    assert [variant.name for variant in export.variants] == ["fp32"]
    assert export.failures == {"fast": "could not be built: the quantizer gave up"}
    assert not list((tmp_path / "out").glob("model.fast.onnx*"))


def test_a_full_disk_is_no_fault_of_a_candidate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Tiny) -> None:
    def unwritable(_: Sources, path: Path) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    candidates = (training.export.CANDIDATES[0], Candidate("fast", "model.fast.onnx", "onnx", "int8", unwritable))
    monkeypatch.setattr(training.export, "CANDIDATES", candidates)
    with pytest.raises(OSError, match="No space left"):
        exported(model.model_dir, tmp_path / "out")


def test_without_fp32_there_is_no_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Tiny) -> None:
    monkeypatch.setattr(training.export, "CANDIDATES", (Candidate("fp32", "model.onnx", "onnx", "fp32", _broken),))
    with pytest.raises(TrainingError, match="cannot be exported to ONNX: the quantizer gave up"):
        exported(model.model_dir, tmp_path / "out")


def test_exporting_again_leaves_nothing_of_the_last_time(
    tmp_path: Path, model: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.old.onnx").write_bytes(b"old")
    monkeypatch.setattr(training.export, "CANDIDATES", training.export.CANDIDATES[:1])
    exported(model.model_dir, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.onnx", "model.onnx.data", "tokenizer.json"}
