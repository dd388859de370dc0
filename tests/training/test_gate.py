"""The gate lets through what answers like torch whoever is beside it, and nothing else."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import numpy_helper
from rich.progress import Progress

from artifact.errors import ArtifactCorrupt
from artifact.manifest import GOLDEN, Estimate, Golden, Limits, Variant, VariantResult
from artifact.repository import Artifact
from inference.backends.base import Backend
from inference.backends.registry import open_backend
from inference.model import Model
from tests.training.findings import assessment, findings
from tests.training.gate_fixtures import ROWS, Tiny, tiny_model
from training.classifier import load_model, load_tokenizer, predict_logits
from training.errors import RecipeInvalid
from training.evaluate import softmax
from training.export import expected_warnings
from training.gate import (
    Floors,
    Measured,
    Verdict,
    flips,
    golden_rows,
    golden_tolerance,
    hold_terms,
    judge,
    judge_accuracy,
    neighbour_batches,
    run_gate,
    text_of,
    tightened,
)
from training.recipe import GateSection

FP32 = Variant(name="fp32", file="model.onnx", format="onnx", precision="fp32")
INT8 = Variant(name="int8", file="model.int8.onnx", format="onnx", precision="int8")


@pytest.fixture(scope="module")
def model() -> Tiny:
    return tiny_model()


def held(trial: Any) -> Verdict:
    with Progress(disable=True) as progress:
        return run_gate(trial, progress)


def result(verdict: Verdict, name: str) -> VariantResult:
    return next(each for each in verdict.results if each.name == name)


def pairs(*positive: float) -> NDArray[np.float64]:
    """Probabilities of two labels from those of the second."""
    column = np.array(positive)
    return np.stack([1 - column, column], axis=1)


# --- floors


def test_the_hard_floors_are_those_of_the_design() -> None:
    assert Floors() == Floors(1e-4, 1e-3, 0.98, -0.01)
    assert tightened(GateSection()) == Floors()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_score_difference", 1e-6),
        ("max_neighbour_score_difference", 0.0),
        ("min_label_agreement", 0.999),
        ("min_accuracy_difference", -0.001),
    ],
)
def test_a_recipe_can_tighten_a_floor(field: str, value: float) -> None:
    floors = tightened(GateSection(**{field: value}))
    assert getattr(floors, field) == value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_score_difference", 1.01e-4),
        ("max_neighbour_score_difference", 1.0),
        ("min_label_agreement", 0.979),
        ("min_accuracy_difference", -0.02),
    ],
)
def test_a_recipe_that_loosens_a_floor_is_refused_by_field(field: str, value: float) -> None:
    with pytest.raises(RecipeInvalid, match=rf"gate\.{field}: must be .* a recipe can only tighten") as caught:
        tightened(GateSection(**{field: value}))
    assert caught.value.exit_status == 2


def test_every_floor_can_be_named_in_a_recipe() -> None:
    assert set(GateSection.model_fields) == {*Floors.__dataclass_fields__, "max_term_movement"}


@pytest.mark.parametrize(("limit", "kept"), [(0.42, ["fp32", "int8"]), (0.412, ["fp32"]), (0.411, []), (0.0, [])])
def test_each_variant_is_held_to_how_far_swapped_terms_move_it(limit: float, kept: list[str]) -> None:
    fp32, int8 = findings().manifest.variants
    passed = tuple(VariantResult(name=each.name, published=True) for each in (fp32, int8))
    refused = VariantResult(name="int8-dynamic", published=False, reason="before")
    [pets] = assessment().bias
    moved = {"fp32": pets, "int8": pets.model_copy(update={"max_movement": 0.415})}
    after = hold_terms(Verdict(True, (fp32, int8), (*passed, refused), None), moved, limit)
    assert after.passed == bool(kept)
    assert [each.name for each in after.published] == kept
    assert [each.name for each in after.results if each.published] == kept
    assert after.results[2] == refused
    assert [each.checks[0].measured for each in after.results[:2]] == [0.412, 0.415]
    if kept != ["fp32", "int8"]:
        assert f"int8: score moved by swapped terms (pets): 0.415, required <= {limit:g}" in after.reasons()


def test_nothing_goes_out_when_swapped_terms_move_the_reference_too_far() -> None:
    variants = findings().manifest.variants
    [pets] = assessment().bias
    passed = tuple(VariantResult(name=each.name, published=True) for each in variants)
    moved = {"fp32": pets, "int8": pets.model_copy(update={"max_movement": 0.1})}
    after = hold_terms(Verdict(True, variants, passed, None), moved, 0.3)
    assert (after.passed, after.published) == (False, ())
    assert "int8: fp32 was refused" in after.reasons()


# --- decisions


def measured(alone: NDArray[np.float64], among: NDArray[np.float64], variant: Variant = FP32) -> Measured:
    return Measured(variant=variant, alone=alone, neighbours={8: among})


def failed(checks: Any) -> list[str]:
    return [check.name for check in checks if not check.passed]


def test_a_faithful_variant_passes_every_check() -> None:
    scores = pairs(0.1, 0.9)
    checks = judge(measured(scores + 5e-5 * np.array([1, -1]), scores), scores, scores, Floors())
    assert failed(checks) == []


def test_fp32_is_held_against_torch() -> None:
    torch_scores = pairs(0.1, 0.9)
    moved = pairs(0.1002, 0.9)
    assert failed(judge(measured(moved, moved), torch_scores, moved, Floors())) == ["score difference from torch"]
    flipped = pairs(0.49999, 0.9)
    torch_scores = pairs(0.50001, 0.9)
    assert failed(judge(measured(flipped, flipped), torch_scores, flipped, Floors())) == ["labels equal to torch"]


def test_reduced_precision_is_held_against_fp32() -> None:
    reference = pairs(*[0.9] * 100)
    scores = pairs(*[0.7] * 98, 0.1, 0.1)
    assert failed(judge(measured(scores, scores, INT8), reference, reference, Floors())) == []
    scores = pairs(*[0.7] * 97, 0.1, 0.1, 0.1)
    checks = judge(measured(scores, scores, INT8), reference, reference, Floors())
    assert failed(checks) == ["label agreement with fp32"]


def test_neighbours_may_move_no_score_and_flip_no_label() -> None:
    alone = pairs(0.6, 0.4)
    assert failed(judge(measured(alone, pairs(0.6009, 0.4)), alone, alone, Floors())) == []
    assert failed(judge(measured(alone, pairs(0.6011, 0.4)), alone, alone, Floors())) == ["score moved in batches of 8"]
    checks = judge(measured(alone, pairs(0.4, 0.4)), alone, alone, Floors())
    assert failed(checks) == ["score moved in batches of 8", "labels flipped in batches of 8"]


def test_a_label_too_close_to_call_may_flip() -> None:
    alone, among = pairs(0.5004, 0.502), pairs(0.4999, 0.4)
    assert flips(alone, among).tolist() == [False, True]


def test_a_score_that_is_no_number_fails_every_comparison() -> None:
    scores = pairs(0.1, math.nan)
    checks = judge(measured(scores, scores), pairs(0.1, 0.9), scores, Floors())
    assert "score difference from torch" in failed(checks)
    assert "score moved in batches of 8" in failed(checks)


@pytest.mark.parametrize(("low", "passes"), [(-0.0099, True), (-0.01, False), (math.nan, False)])
def test_accuracy_may_drop_by_less_than_a_point(low: float, passes: bool) -> None:
    assert judge_accuracy(Estimate(value=0.0, low=low, high=0.0), Floors()).passed is passes


@given(rows=st.integers(1, 200), size=st.sampled_from([2, 8, 32]))
def test_every_row_meets_neighbours_in_groups_of_exactly_that_size(rows: int, size: int) -> None:
    batches = neighbour_batches(rows, size)
    assert {len(batch) for batch in batches} == {size}
    assert {row for batch in batches for row in batch} == set(range(rows))
    assert batches == neighbour_batches(rows, size)


@given(lengths=st.lists(st.integers(1, 500), min_size=1, max_size=100), seed=st.integers(0, 99))
def test_golden_inputs_go_from_short_to_long(lengths: list[int], seed: int) -> None:
    scores = pairs(*np.random.default_rng(seed).random(len(lengths)))
    rows = golden_rows(lengths, scores)
    assert 1 <= len(rows) <= 16
    assert len(set(rows)) == len(rows)
    assert [lengths[row] for row in rows] == sorted(lengths[row] for row in rows)


def test_golden_inputs_include_the_extremes_and_no_close_call() -> None:
    scores = pairs(*[0.9] * 50, 0.51)
    rows = golden_rows(range(51), scores)
    assert (rows[0], rows[-1], len(rows)) == (0, 49, 16)


def test_a_golden_tolerance_leaves_room_for_another_cpu() -> None:
    fine = VariantResult(name="x", published=True, max_score_difference=1e-7)
    rough = VariantResult(name="x", published=True, max_score_difference=0.1)
    assert golden_tolerance(fine, FP32) == 1e-3
    assert golden_tolerance(fine, INT8) == 0.02
    assert golden_tolerance(rough, INT8) == pytest.approx(0.15)


def test_a_text_of_some_length_is_made_of_real_words() -> None:
    text, count = text_of(["a bb ccc", "dd e"] * 50, 7, lambda text: len(text.split()) + 2)
    assert (text, count) == ("a bb ccc dd e", 7)
    text, count = text_of(["extraordinary"], 1, lambda text: 9)
    assert (text, count) == ("extraordinary", 9), "one word at least"


# --- the gate over real files


def test_a_faithful_export_is_published_with_golden_answers(tmp_path: Path, model: Tiny) -> None:
    trial = model.trial(tmp_path / "out")
    verdict = held(trial)
    assert verdict.passed
    assert {"fp32", "torchscript"} <= {variant.name for variant in verdict.published}
    fp32 = result(verdict, "fp32")
    assert fp32.bytes == sum((tmp_path / "out" / name).stat().st_size for name in ("model.onnx", "model.onnx.data"))
    assert fp32.max_score_difference < 1e-5
    assert fp32.metrics["accuracy"].value > 0.9
    assert {cell["batch_size"] for cell in fp32.speed} == {1, 8, 32}
    golden = Golden.model_validate_json((tmp_path / "out" / GOLDEN).read_bytes())
    assert golden == verdict.golden
    assert golden.tolerance.keys() == {variant.name for variant in verdict.published}
    sizes = {check.name.partition(" in batches of ")[2] for check in fp32.checks}
    assert {"2", "8", "32"} <= sizes
    with expected_warnings():
        for variant in verdict.published:
            Model.load(trial.artifact(), variant=variant.name).close()


def test_texts_in_windows_are_held_against_torch_reading_the_same_windows(tmp_path: Path, model: Tiny) -> None:
    trial = model.trial(tmp_path / "out")
    texts = tuple(f"{text} {other} {text}" for text, other in zip(trial.texts, trial.texts[::-1], strict=True))[:24]
    torch_model, tokenizer = load_model(model.model_dir), load_tokenizer(model.model_dir)
    logits = predict_logits(torch_model, tokenizer, texts, max_tokens=300, window_tokens=16)
    changed = {
        "limits": Limits(max_input_tokens=300),
        "preprocessing": trial.manifest.preprocessing.model_copy(update={"window_tokens": 16}),
        "variants": trial.manifest.variants[:1],
    }
    manifest = trial.manifest.model_copy(update=changed)
    labels = logits.argmax(axis=1)
    trial = replace(trial, texts=texts, labels=labels, torch_scores=softmax(logits), manifest=manifest)
    verdict = held(trial)
    assert verdict.passed, verdict.reasons()
    fp32 = result(verdict, "fp32")
    assert fp32.max_score_difference < 1e-5
    assert fp32.neighbour_max_score_difference < 1e-5


def test_the_gate_gives_torch_its_threads_back(tmp_path: Path, model: Tiny) -> None:
    before = torch.get_num_threads()
    held(model.trial(tmp_path / "out", manifest=model.manifest(model.export.variants[:2])))
    assert torch.get_num_threads() == before


def _perturb(path: Path) -> None:
    """Halve the weights of the last layer: a broken export that still loads and runs."""
    graph = onnx.load(path)
    [weights] = [each for each in graph.graph.initializer if each.name.endswith("classifier.weight")]
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32(0.5), weights.name))
    onnx.save(graph, path)


def test_when_fp32_is_wrong_nothing_is_published(tmp_path: Path, model: Tiny) -> None:
    trial = model.trial(tmp_path / "out", manifest=model.manifest(model.export.variants[:2]))
    _perturb(trial.folder / "model.onnx")
    verdict = held(trial)
    assert (verdict.passed, verdict.published, verdict.golden) == (False, (), None)
    assert "score difference from torch" in result(verdict, "fp32").reason
    assert result(verdict, "torchscript").reason == "fp32 was refused, so nothing is published"
    assert not (trial.folder / GOLDEN).exists()
    assert verdict.reasons().startswith("fp32: score difference from torch: ")


@pytest.mark.parametrize("content", [None, b"", b"not a model"])
def test_a_variant_that_does_not_load_is_refused_alone(tmp_path: Path, model: Tiny, content: bytes | None) -> None:
    fp32, _, int8 = model.export.variants[:3]
    trial = model.trial(tmp_path / "out", manifest=model.manifest((fp32, int8)))
    (trial.folder / int8.file).unlink()
    if content is not None:
        (trial.folder / int8.file).write_bytes(content)
    verdict = held(trial)
    assert [variant.name for variant in verdict.published] == ["fp32"]
    assert result(verdict, "int8").reason.startswith("could not be run: ")
    assert str(tmp_path) not in result(verdict, "int8").reason


def test_what_could_not_be_built_is_in_the_verdict(tmp_path: Path, model: Tiny) -> None:
    fp32 = model.export.variants[:1]
    trial = model.trial(tmp_path / "out", manifest=model.manifest(fp32), failures={"bf16": "could not be built: no"})
    assert result(held(trial), "bf16") == VariantResult(name="bf16", published=False, reason="could not be built: no")


class Sociable:
    """A backend that is right alone and swayed by its batch, as one activation scale per tensor makes it."""

    engine = "sociable"

    def __init__(self, inner: Backend, sway: float) -> None:
        self._inner = inner
        self._sway = sway

    def infer(self, inputs: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[Any]]:
        outputs = self._inner.infer(inputs)
        logits = outputs["logits"]
        return {"logits": logits + self._sway * (logits.mean(axis=0, keepdims=True) - logits)}


class Moody:
    """A backend that fails on batches of more than four."""

    engine = "moody"

    def __init__(self, inner: Backend) -> None:
        self._inner = inner

    def infer(self, inputs: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[Any]]:
        if len(inputs["input_ids"]) > 4:
            raise RuntimeError("out of memory")
        return self._inner.infer(inputs)


def test_a_variant_swayed_by_its_neighbours_is_refused_and_told_why(tmp_path: Path, model: Tiny) -> None:
    fp32, _, int8 = model.export.variants[:3]

    def opener(artifact: Artifact, variant: Variant) -> Backend:
        # The file is fp32's own: alone it is perfect.
        inner = open_backend(artifact, fp32)
        return Sociable(inner, 0.6) if variant.name == int8.name else inner

    verdict = held(model.trial(tmp_path / "out", manifest=model.manifest((fp32, int8)), opener=opener))
    assert [variant.name for variant in verdict.published] == ["fp32"]
    refused = result(verdict, "int8")
    assert refused.label_agreement == 1.0
    assert refused.neighbour_max_score_difference > 1e-3
    assert "score moved in batches of" in refused.reason
    assert verdict.golden is not None
    assert "int8" not in verdict.golden.tolerance


def test_fp32_swayed_by_its_neighbours_refuses_everything(tmp_path: Path, model: Tiny) -> None:
    fp32 = model.export.variants[:1]
    trial = model.trial(
        tmp_path / "out",
        manifest=model.manifest(fp32),
        opener=lambda artifact, variant: Sociable(open_backend(artifact, variant), 0.1),
    )
    assert not held(trial).passed


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_variant_that_fails_in_large_batches_is_refused(tmp_path: Path, model: Tiny) -> None:
    fp32, _, int8 = model.export.variants[:3]

    def opener(artifact: Artifact, variant: Variant) -> Backend:
        inner = open_backend(artifact, fp32)
        return Moody(inner) if variant.name == int8.name else inner

    verdict = held(model.trial(tmp_path / "out", manifest=model.manifest((fp32, int8)), opener=opener))
    assert [variant.name for variant in verdict.published] == ["fp32"]
    assert result(verdict, "int8").reason == "could not be run: the model failed on this batch"


def test_a_reference_that_cannot_be_opened_refuses_everything(tmp_path: Path, model: Tiny) -> None:
    def opener(artifact: Artifact, variant: Variant) -> Backend:
        raise ArtifactCorrupt(f"{variant.file}: torn")

    verdict = held(model.trial(tmp_path / "out", manifest=model.manifest(model.export.variants[:1]), opener=opener))
    assert not verdict.passed
    assert verdict.reasons() == "fp32: could not be run: model.onnx: torn"


@pytest.mark.parametrize("sampled", [None, ROWS // 3])
def test_every_row_is_answered_alone_and_those_of_the_sample_at_every_batch_size(
    sampled: int | None, tmp_path: Path, model: Tiny
) -> None:
    seen: dict[int, int] = {}

    class Counting:
        engine = "counting"

        def __init__(self, inner: Backend) -> None:
            self._inner = inner

        def infer(self, inputs: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[Any]]:
            size = len(inputs["input_ids"])
            seen[size] = seen.get(size, 0) + size
            return self._inner.infer(inputs)

    trial = model.trial(
        tmp_path / "out",
        manifest=model.manifest(model.export.variants[:1]),
        opener=lambda artifact, variant: Counting(open_backend(artifact, variant)),
        neighbour_rows=sampled or ROWS,
    )
    assert held(trial).passed
    assert seen[1] >= ROWS
    assert all((sampled or ROWS) <= seen[size] for size in (2, 8, 32))
    assert sampled is None or seen[2] < ROWS


def test_the_sample_is_spread_over_the_whole_split(tmp_path: Path, model: Tiny) -> None:
    trial = model.trial(tmp_path / "out", neighbour_rows=7)
    assert trial.sample.tolist()[0] == 0
    assert trial.sample.tolist()[-1] == ROWS - 1
    assert len(set(trial.sample.tolist())) == 7
    assert len(model.trial(tmp_path / "all", neighbour_rows=10 * ROWS).sample) == ROWS


def test_neighbours_are_compared_with_the_same_rows_alone() -> None:
    alone = pairs(0.1, 0.9, 0.2)
    found = Measured(variant=FP32, alone=alone, neighbours={8: alone[[0, 2]]}, sample=np.array([0, 2]))
    assert failed(judge(found, alone, alone, Floors())) == []
    moved = Measured(variant=FP32, alone=alone, neighbours={8: alone[[0, 1]]}, sample=np.array([0, 2]))
    assert failed(judge(moved, alone, alone, Floors())) == [
        "score moved in batches of 8",
        "labels flipped in batches of 8",
    ]
