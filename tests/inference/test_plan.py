"""What is possible on a machine, and the rule where nothing was measured."""

from dataclasses import replace
from pathlib import Path

import pytest

from artifact.errors import ArtifactNotFound
from artifact.manifest import Golden, GoldenInput, Manifest, Variant, VariantResult
from inference.layout import Cpu
from inference.plan import Plan, Wish, candidates, default_plan, golden_tolerance, layouts, wished_plan
from tests.tiny_artifact import publish_tiny

PLAIN = Cpu("plain", ("avx2",), 2)
RICH = Cpu("rich", ("avx512_bf16", "avx512_vnni"), 2)
ALL = ("onnxruntime", "openvino", "openvino-bf16", "torchscript")
INT8 = Variant(name="int8", file="model.int8.onnx", format="onnx", precision="int8")
TORCH = Variant(name="torchscript", file="model.ts", format="torchscript", precision="fp32")


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    _, plain = publish_tiny(tmp_path)
    return plain.model_copy(update={"variants": (*plain.variants, INT8, TORCH)})


def engines(plans: list[Plan]) -> set[tuple[str, str]]:
    return {(plan.variant, plan.engine) for plan in plans}


def test_every_variant_on_every_engine_that_can_run_it(manifest: Manifest) -> None:
    assert engines(candidates(manifest, RICH, ALL)) == {
        ("fp32", "onnxruntime"),
        ("fp32", "openvino"),
        ("fp32", "openvino-bf16"),
        ("int8", "onnxruntime"),
        ("torchscript", "torchscript"),
    }


def test_what_is_not_installed_or_emulated_is_no_candidate(manifest: Manifest) -> None:
    assert engines(candidates(manifest, PLAIN, ALL)) & {("fp32", "openvino-bf16")} == set()
    assert engines(candidates(manifest, RICH, ("onnxruntime",))) == {("fp32", "onnxruntime"), ("int8", "onnxruntime")}


@pytest.mark.parametrize(("cores", "expected"), [(1, [(1, 1)]), (2, [(2, 1), (1, 2)]), (8, [(8, 1), (4, 2), (1, 8)])])
def test_the_grid_of_threads(cores: int, expected: list[tuple[int, int]]) -> None:
    assert layouts(cores) == expected


def test_the_rule_takes_int8_only_where_the_cpu_is_made_for_it(manifest: Manifest) -> None:
    assert default_plan(manifest, RICH) == Plan("int8", "onnxruntime", 2)
    assert default_plan(manifest, PLAIN) == Plan("fp32", "onnxruntime", 2)
    assert candidates(manifest, RICH, ALL)[0] == default_plan(manifest, RICH)


def test_the_rule_passes_over_int8_that_listens_to_its_neighbours(manifest: Manifest) -> None:
    verdict = VariantResult(name="int8", published=True, neighbour_label_flips=3)
    gate = manifest.gate.model_copy(update={"variants": (verdict,)})
    assert default_plan(manifest.model_copy(update={"gate": gate}), RICH).variant == "fp32"


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (Wish(variant="fp32"), Plan("fp32", "onnxruntime", 2)),
        (Wish(variant="fp32", engine="openvino-bf16"), Plan("fp32", "openvino-bf16", 2)),
        (Wish(engine="openvino"), Plan("fp32", "openvino", 2)),
        (Wish(engine="torchscript"), Plan("torchscript", "torchscript", 2)),
        (Wish(variant="int8", threads=2), Plan("int8", "onnxruntime", 1, 2)),
        (Wish(variant="int8", workers=3), Plan("int8", "onnxruntime", 3, 1)),
        (Wish(variant="int8", workers=3, threads=4), Plan("int8", "onnxruntime", 3, 4)),
    ],
)
def test_a_wish_is_completed_by_the_rule(manifest: Manifest, wish: Wish, expected: Plan) -> None:
    assert wished_plan(manifest, wish, RICH) == expected


def test_a_wish_for_what_is_not_there_lists_what_is(manifest: Manifest) -> None:
    with pytest.raises(ArtifactNotFound, match="no variant 'int3'; it has fp32, int8, torchscript"):
        wished_plan(manifest, Wish(variant="int3"), RICH)


def test_more_threads_than_cores_leave_one_worker() -> None:
    assert Wish(threads=16).lay_out(Plan("fp32", "onnxruntime", 2), 2) == Plan("fp32", "onnxruntime", 1, 16)
    assert Wish().lay_out(Plan("fp32", "onnxruntime", 2), 4) == Plan("fp32", "onnxruntime", 2)


def test_bf16_gets_the_tolerance_of_reduced_precision() -> None:
    example = GoldenInput(input="good", label="positive", scores=(0.1, 0.9))
    golden = Golden(inputs=(example,), tolerance={"fp32": 1e-3, "int8": 0.1})
    assert golden_tolerance(golden, "fp32", "onnxruntime") == 1e-3
    assert golden_tolerance(golden, "fp32", "openvino-bf16") == 0.02
    assert golden_tolerance(golden, "int8", "onnxruntime") == 0.1
    assert golden_tolerance(golden, "other", "onnxruntime") == 1e-3


def test_arm_has_these_instructions_under_other_names() -> None:
    assert replace(PLAIN, instructions=("asimddp", "bf16")).fast_int8
    assert replace(PLAIN, instructions=("asimddp", "bf16")).fast_bf16
