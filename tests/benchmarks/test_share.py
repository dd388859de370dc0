from pathlib import Path

import pytest

from artifact.repository import Repository
from benchmarks.share import Share, in_words, measure_share, measure_shares
from benchmarks.workload import Workload
from tests.tiny_artifact import publish_tiny

PEAKS = {"fp32": {"numpy": 80.0, "onnxruntime": 100.0}, "bf16": {}}


def test_a_rate_is_a_percentage_of_the_peak() -> None:
    assert Share(0.05, 100.0).percent(400) == pytest.approx(20)


@pytest.mark.parametrize("share", [Share(0.0, 100.0), Share(0.05, 0.0)])
def test_what_was_not_measured_has_no_percentage(share: Share) -> None:
    assert share.percent(400) is None


def test_percentages_are_rounded_for_people() -> None:
    assert in_words(33.6) == "34 % of peak"
    assert in_words(None) == ""


def test_the_best_library_is_the_peak_of_a_precision(tmp_path: Path) -> None:
    publish_tiny(tmp_path)
    artifact = Repository(tmp_path).open("sentiment")
    assert measure_share(artifact, "fp32", PEAKS, [4]).peak_gops == 100.0
    assert measure_share(artifact, "bf16", PEAKS, [4]).peak_gops == 0.0


def test_longer_texts_cost_more(tmp_path: Path) -> None:
    publish_tiny(tmp_path)
    artifact = Repository(tmp_path).open("sentiment")
    workload = Workload("test", ("a b",), ("a b c d e f",), (("a b", "a b c d e f"),))
    shares = measure_shares(artifact, "fp32", PEAKS, workload, lambda text: len(text.split()))
    costs = {kind: share.gigaoperations_per_text for kind, share in shares.items()}
    assert costs.keys() == {"short", "long", "mixed"}
    assert costs["short"] <= costs["mixed"] <= costs["long"]
