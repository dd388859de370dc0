"""Measuring plans through the serving path, on a real if tiny artifact."""

from pathlib import Path

import pytest

from artifact.repository import Artifact, open_artifact
from inference.calibration import Sample, calibrate, options_of, run_delay_seconds
from inference.model import Options
from inference.plan import Plan
from inference.policy import Limits
from tests.tiny_artifact import publish_tiny

FP32 = Plan("fp32", "onnxruntime", 2)
ONE_BY_ONE = Plan("fp32", "onnxruntime", 1, 2)


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return open_artifact(publish_tiny(tmp_path)[0])


def test_measuring_fills_every_figure(artifact: Artifact) -> None:
    (found,) = calibrate(Sample(artifact, 8), [FP32], seconds=0.02, rounds=2)
    assert found.failure is None
    assert found.turns >= 1
    assert min(found.load_seconds, found.texts_per_second, found.alone_p50_seconds, found.cpu_seconds_per_text) > 0
    assert found.checks.golden_difference <= found.checks.golden_allowed
    assert found.checks.agreement == 1.0
    assert found.checks.neighbour_flips == 0


def test_a_plan_that_cannot_be_opened_is_a_result(artifact: Artifact) -> None:
    found = calibrate(Sample(artifact, 8), [FP32, Plan("gone", "onnxruntime", 1)], seconds=0.02, rounds=2)
    assert found[0].failure is None
    assert found[1].failure is not None
    assert "no variant 'gone'" in found[1].failure


def test_a_hurry_leaves_out_all_but_the_first(artifact: Artifact) -> None:
    found = calibrate(Sample(artifact, 8), [FP32, ONE_BY_ONE], seconds=0.0, rounds=1, patient=False)
    assert found[0].turns == 1
    assert found[1].failure == "the time was up before its turn"


def test_golden_answers_that_are_off_are_measured_not_raised(tmp_path: Path) -> None:
    spoiled = open_artifact(publish_tiny(tmp_path, spoil_golden=True)[0])
    (found,) = calibrate(Sample(spoiled, 8), [FP32], seconds=0.0, rounds=1)
    assert found.failure is None
    assert found.checks.golden_difference > found.checks.golden_allowed


def test_every_plan_gets_a_turn_in_every_round(artifact: Artifact) -> None:
    turns: list[Plan] = []
    calibrate(Sample(artifact, 8), [FP32, ONE_BY_ONE], seconds=0.2, rounds=1, on_turn=turns.append)
    assert turns == [FP32, ONE_BY_ONE]


def test_waiting_for_a_core_is_summed_over_threads(tmp_path: Path) -> None:
    for thread, content in {"1": "5 1500000000 7", "2": "5 500000000 7", "3": "", "4": "gone"}.items():
        (tmp_path / thread).mkdir()
        (tmp_path / thread / "schedstat").write_text(content)
    assert run_delay_seconds(tmp_path) == 2.0
    assert run_delay_seconds(tmp_path / "absent") == 0.0


def test_a_plan_changes_nothing_about_the_limits() -> None:
    options = options_of(ONE_BY_ONE, Options(limits=Limits(max_batch_size=3), execution_timeout_seconds=7.0))
    assert (options.limits.max_batch_size, options.execution_timeout_seconds) == (3, 7.0)
    assert (options.engine, options.workers, options.threads) == ("onnxruntime", 1, 2)
