"""Choosing, remembering and falling back."""

import json
import logging
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from artifact.errors import ArtifactCorrupt, ArtifactError, ArtifactNotFound
from artifact.repository import Artifact, open_artifact
from inference.calibration import Checks, Measurement
from inference.engines import Cache, Choice, Floors, bench, choose, load_model, open_cache
from inference.layout import Cpu, usable_cores
from inference.model import Model
from inference.plan import Plan, Wish
from tests.tiny_artifact import GOLDEN_TEXTS, publish_tiny

CPU = Cpu("test", ("avx2",), 2)
ORT = {"onnxruntime": "1"}
FP32 = Plan("fp32", "onnxruntime", 2)
ONE_BY_ONE = Plan("fp32", "onnxruntime", 1, 2)


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return open_artifact(publish_tiny(tmp_path / "models")[0])


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", CPU, ORT)


def measured(plan: Plan, speed: float, alone: float = 0.01, **checks: float) -> Measurement:
    good = Checks(golden_allowed=1e-3)
    return Measurement(plan, turns=3, texts_per_second=speed, alone_p50_seconds=alone, checks=replace(good, **checks))  # type: ignore[arg-type]


# --- choose ------------------------------------------------------------------------------------------------------


def test_the_fastest_wins() -> None:
    found = [measured(FP32, 100), measured(Plan("int8", "onnxruntime", 2), 200)]
    assert (choice := choose(found)) is not None
    assert choice.plan.variant == "int8"
    assert "200 texts/s" in choice.why


def test_among_equals_the_one_that_answers_a_lone_request_first() -> None:
    choice = choose([measured(FP32, 100, alone=0.005), measured(ONE_BY_ONE, 97, alone=0.003)])
    assert choice is not None
    assert choice.plan == ONE_BY_ONE


@pytest.mark.parametrize(
    "broken",
    [
        {"golden_difference": 0.002},
        {"golden_difference": math.nan},
        {"neighbour_difference": 0.01},
        {"neighbour_difference": math.nan},
        {"neighbour_flips": 1},
        {"agreement": 0.97},
        {"agreement": math.nan},
    ],
)
def test_no_speed_makes_up_for_a_broken_floor(broken: dict[str, float]) -> None:
    fast = measured(Plan("int8", "onnxruntime", 2), 1000, **broken)
    choice = choose([fast, measured(FP32, 10)])
    assert choice is not None
    assert choice.plan == FP32
    assert Floors().broken_by(fast)
    assert choose([fast]) is None


def test_on_a_busy_machine_cpu_time_decides_and_luck_does_not() -> None:
    """Seen: two workers starved to 109 texts/s by other processes, while one worker's turn was quiet, at 403."""
    starved = replace(measured(FP32, 109), cpu_seconds_per_text=0.00249, contention=0.8)
    lucky = replace(measured(ONE_BY_ONE, 403, alone=0.001), cpu_seconds_per_text=0.00240, contention=0.1)
    choice = choose([lucky, starved])
    assert choice is not None
    assert choice.plan == FP32
    assert "busy" in choice.why


def test_a_plan_that_failed_is_never_chosen() -> None:
    assert choose([Measurement(FP32, failure="lost")]) is None


# --- the cache ---------------------------------------------------------------------------------------------------


def test_a_choice_is_found_again_by_the_same_machine_and_artifact(artifact: Artifact, cache: Cache) -> None:
    choice = Choice(ONE_BY_ONE, "because")
    cache.write(artifact, choice, [measured(ONE_BY_ONE, 5)])
    assert cache.read(artifact) == choice
    assert replace(cache, cpu=replace(CPU, cores=1)).read(artifact) is None
    assert replace(cache, cpu=replace(CPU, instructions=())).read(artifact) is None
    assert cache.read(replace(artifact, digest="sha256:other")) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: b"{",
        lambda content: b"[]",
        lambda content: b"\xff",
        lambda content: json.dumps(content | {"format": 0}).encode(),
        lambda content: json.dumps(content | {"engines": {"onnxruntime": "0"}}).encode(),
        lambda content: json.dumps(content | {"plan": {"variant": "fp32"}}).encode(),
        lambda content: json.dumps(content | {"plan": content["plan"] | {"workers": "2"}}).encode(),
        lambda content: json.dumps(content | {"plan": content["plan"] | {"workers": 4096}}).encode(),
        lambda content: json.dumps(content | {"plan": content["plan"] | {"variant": "gone"}}).encode(),
    ],
)
def test_what_cannot_be_used_is_ignored_with_a_line_in_the_log(
    artifact: Artifact, cache: Cache, spoil: object, caplog: pytest.LogCaptureFixture
) -> None:
    path = cache.write(artifact, Choice(FP32, "because"), [])
    path.write_bytes(spoil(json.loads(path.read_bytes())))  # type: ignore[operator]
    with caplog.at_level(logging.WARNING, "slipway.engines"):
        assert cache.read(artifact) is None
    assert "is ignored" in caplog.text


def test_no_cache_is_no_fault(artifact: Artifact, cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    assert cache.read(artifact) is None
    assert not caplog.records


# --- measuring ---------------------------------------------------------------------------------------------------


def test_processes_that_share_the_cores_plan_for_their_share(tmp_path: Path) -> None:
    cores = usable_cores()
    assert open_cache(tmp_path).cpu.cores == cores
    assert open_cache(tmp_path, 2).cpu.cores == max(1, cores // 2)
    assert open_cache(tmp_path, 1000).cpu.cores == 1


def test_the_bench_keeps_its_choice(artifact: Artifact, cache: Cache) -> None:
    seen: list[Plan] = []
    report = bench(artifact, cache, seconds=0.02, rounds=1, on_turn=seen.append)
    assert {each.plan for each in report.found} == {FP32, ONE_BY_ONE}
    assert FP32 in seen
    assert report.default == FP32
    assert report.choice is not None
    assert report.kept == cache.path(artifact.digest)
    assert cache.read(artifact) == report.choice
    assert report.refused == {}


def test_a_cache_that_cannot_be_written_costs_only_the_next_start(artifact: Artifact, cache: Cache) -> None:
    cache.folder.write_text("a file where the folder should be", encoding="utf-8")
    report = bench(artifact, cache, seconds=0.02, rounds=1)
    assert report.choice is not None
    assert report.kept is None


# --- serving -----------------------------------------------------------------------------------------------------


def served(model: Model) -> tuple[Plan, str]:
    """How a loaded model runs, after it has answered; closed."""
    assert model.predict([GOLDEN_TEXTS[0]]).predictions[0].label == "positive"
    model.close()
    return model.plan, model.why


def test_what_was_measured_is_served(artifact: Artifact, cache: Cache) -> None:
    cache.write(artifact, Choice(ONE_BY_ONE, "measured here"), [])
    assert served(load_model(artifact, cache=cache)) == (ONE_BY_ONE, "measured here")


def test_without_a_measurement_the_rule_decides_and_says_so(artifact: Artifact, cache: Cache) -> None:
    plan, why = served(load_model(artifact, cache=cache))
    assert plan == FP32
    assert why.startswith("by rule")


def test_a_first_start_can_measure(artifact: Artifact, cache: Cache) -> None:
    _, why = served(load_model(artifact, cache=cache, calibrate_seconds=0.02))
    assert why.startswith("measured here")
    assert cache.read(artifact) is not None


def test_an_operator_is_obeyed(artifact: Artifact, cache: Cache) -> None:
    cache.write(artifact, Choice(FP32, "measured here"), [])
    assert served(load_model(artifact, cache=cache, wish=Wish(variant="fp32", threads=2))) == (
        ONE_BY_ONE,
        "set by the operator",
    )
    assert served(load_model(artifact, cache=cache, wish=Wish(workers=3))) == (
        Plan("fp32", "onnxruntime", 3),
        "measured here",
    )


def test_an_operator_gets_nothing_else_instead(artifact: Artifact, cache: Cache) -> None:
    with pytest.raises(ArtifactNotFound, match="no variant 'int3'"):
        load_model(artifact, cache=cache, wish=Wish(variant="int3"))
    with pytest.raises(ArtifactError, match="does not run on 'torchscript'"):
        load_model(artifact, cache=cache, wish=Wish(variant="fp32", engine="torchscript"))


def test_a_choice_that_does_not_load_gives_way(
    artifact: Artifact, cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    able = replace(cache, installed=ORT | {"openvino": "1"})
    chosen = Plan("fp32", "openvino", 2)
    able.write(artifact, Choice(chosen, "measured here"), [])
    (artifact.path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(ArtifactCorrupt):
        load_model(artifact, cache=able)
    assert "fp32 on openvino, 2 x 1 threads does not work here, trying the next" in caplog.text


def test_wrong_golden_answers_fall_back_to_the_first_variant(tmp_path: Path, cache: Cache) -> None:
    """An int8 file that gives other answers: the rule chooses it, the golden inputs refuse it, fp32 serves."""
    plain = open_artifact(publish_tiny(tmp_path / "models")[0])
    other = open_artifact(publish_tiny(tmp_path / "other")[0])
    variant = plain.manifest.variants[0].model_copy(
        update={"name": "int8", "precision": "int8", "file": "golden.json"}  # no model at all
    )
    manifest = plain.manifest.model_copy(update={"variants": (*plain.manifest.variants, variant)})
    rich = replace(cache, cpu=replace(CPU, instructions=("avx512_vnni",)))
    plan, why = served(load_model(replace(other, manifest=manifest), cache=rich))
    assert plan == FP32
    assert why.startswith("int8 on onnxruntime, 2 x 1 threads does not work here")


def test_golden_answers_that_never_come_out_stop_the_load(tmp_path: Path, cache: Cache) -> None:
    path, _ = publish_tiny(tmp_path, spoil_golden=True)
    with pytest.raises(ArtifactCorrupt, match="golden input 0"):
        load_model(open_artifact(path), cache=cache)


def test_openvino_serves_where_it_was_chosen(artifact: Artifact, tmp_path: Path) -> None:
    real = open_cache(tmp_path / "cache")
    plan = Plan("fp32", "openvino", real.cpu.cores)
    real.write(artifact, Choice(plan, "measured here"), [])
    assert served(load_model(artifact, cache=real)) == (plan, "measured here")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is a thing of Linux")
def test_one_core_means_one_worker_with_one_thread(artifact: Artifact, tmp_path: Path) -> None:
    """A process confined to one core plans for one, and still answers."""
    probe = (
        "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from pathlib import Path\n"
        "from artifact.repository import open_artifact\n"
        "from inference.engines import load_model, open_cache\n"
        "model = load_model(open_artifact(Path(sys.argv[1])), cache=open_cache(Path(sys.argv[2])))\n"
        "model.predict(['good'] * 20); model.close(); print(model.plan.workers, model.plan.threads)"
    )
    command = [sys.executable, "-c", probe, str(artifact.path), str(tmp_path / "cache")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["1", "1"]
