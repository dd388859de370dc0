"""service/drift.py: each answered input is counted once per feature, in the bin the reference would put it."""

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from artifact.manifest import Binned, Manifest, Reference
from inference.errors import BackendFailed
from inference.tasks.base import Prediction, Prepared
from service.drift import MOST_LABELS, features
from service.metrics import Metrics, ModelKey, ModelObserver
from tests.artifact.build import draft
from tests.service.fakes import running
from tests.tiny_artifact import publish_tiny

KEY = ModelKey("toy", "1", "text-classification")
LABELS = {"model": "toy", "version": "1", "task": "text-classification"}
REFERENCE = Reference(
    rows=100,
    input_tokens=Binned(edges=(4, 8), shares=(0.5, 0.3, 0.2)),
    unknown_tokens=Binned(edges=(0, 0.5), shares=(0.9, 0.1, 0)),
    unknown_token_share=0.02,
    label_shares=(0.4, 0.6),
    scores=Binned(edges=(0.75,), shares=(0.2, 0.8)),
)


def observing(manifest: Manifest) -> tuple[Metrics, ModelObserver]:
    metrics = Metrics(process=False)
    observer = ModelObserver(metrics, KEY, manifest)
    return metrics, observer


def bins(metrics: Metrics, feature: str, name: str = "slipway_drift_inputs_total") -> dict[str, float]:
    metrics.render()  # tallies are carried over when somebody reads
    return {
        sample.labels["bin"]: sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == name and sample.labels["feature"] == feature
    }


def said(label: str, score: float) -> Prediction:
    return Prediction(label, score, (score, 1 - score))


def test_bins_and_their_reference_exist_before_the_first_input() -> None:
    metrics, _ = observing(draft(reference=REFERENCE))
    assert bins(metrics, "input_tokens") == {"4": 0, "8": 0, "+Inf": 0}
    assert bins(metrics, "label") == {"negative": 0, "positive": 0}
    expected = bins(metrics, "input_tokens", "slipway_drift_reference_share")
    assert expected == {"4": 0.5, "8": 0.3, "+Inf": 0.2}
    assert metrics.registry.get_sample_value("slipway_unknown_tokens_reference_share", LABELS) == 0.02


def test_an_input_is_counted_once_in_each_feature() -> None:
    metrics, observer = observing(draft(reference=REFERENCE))
    inputs = [Prepared([1] * 4, 4), Prepared([1] * 5, 5, unknown=1), Prepared([1] * 9, 9, unknown=9)]
    observer.inputs_done(inputs, [said("positive", 0.75), said("positive", 0.9), said("negative", 0.5)])
    assert bins(metrics, "input_tokens") == {"4": 1, "8": 1, "+Inf": 1}
    assert bins(metrics, "unknown_tokens") == {"0": 1, "0.5": 1, "+Inf": 1}
    assert bins(metrics, "score") == {"0.75": 2, "+Inf": 1}
    assert bins(metrics, "label") == {"negative": 1, "positive": 2}
    assert metrics.registry.get_sample_value("slipway_unknown_tokens_total", LABELS) == 10


def test_reading_twice_counts_once_and_two_threads_lose_nothing() -> None:
    metrics, observer = observing(draft(reference=REFERENCE))

    def work() -> None:
        for _ in range(2000):
            observer.inputs_done([Prepared([1] * 4, 4)], [said("positive", 0.75)])

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        bins(metrics, "score")
    for _ in range(2):
        assert bins(metrics, "score") == {"0.75": 4000, "+Inf": 0}


def test_a_failed_input_has_no_prediction_to_count() -> None:
    metrics, observer = observing(draft(reference=REFERENCE))
    observer.inputs_done([Prepared([1], 1)], [BackendFailed("no")])
    assert sum(bins(metrics, "score").values()) == 0


def test_an_artifact_without_a_reference_is_served_without_drift() -> None:
    metrics, observer = observing(draft())
    observer.inputs_done([Prepared([1], 1, unknown=1)], [said("positive", 1.0)])
    assert bins(metrics, "score") == {}
    assert metrics.registry.get_sample_value("slipway_unknown_tokens_total", LABELS) == 1


def test_many_labels_make_no_series_each() -> None:
    labels = [f"label{number}" for number in range(MOST_LABELS + 1)]
    reference = REFERENCE.model_copy(update={"label_shares": tuple(1 / len(labels) for _ in labels)})
    assert [feature.name for feature in features(reference, labels)] == ["input_tokens", "unknown_tokens", "score"]
    metrics, observer = observing(draft(labels=tuple(labels), reference=reference))
    observer.inputs_done([Prepared([1], 1)], [said("label3", 0.9)])
    assert sum(bins(metrics, "score").values()) == 1


def test_the_service_counts_what_it_answers_and_not_its_golden_inputs(tmp_path: Path) -> None:
    publish_tiny(tmp_path, reference=REFERENCE)
    texts: Sequence[str] = ["good", "zebra film", "a very good and very warm film !"]
    with running(tmp_path) as service:
        assert service.predict(list(texts)).status_code == 200
        metrics = service.server.context.metrics
    assert bins(metrics, "input_tokens") == {"4": 2, "8": 0, "+Inf": 1}
    assert bins(metrics, "unknown_tokens") == {"0": 2, "0.5": 1, "+Inf": 0}
    assert sum(bins(metrics, "label").values()) == len(texts)


def test_an_answered_input_is_counted_once_whether_or_not_it_was_computed(tmp_path: Path) -> None:
    publish_tiny(tmp_path, reference=REFERENCE)
    with running(tmp_path, response_cache_bytes=100_000) as service:
        for texts in (["good", "good"], ["good", "zebra film"], ["a very good and very warm film !", "good"]):
            assert service.predict(texts).status_code == 200
        metrics = service.server.context.metrics
    assert bins(metrics, "input_tokens") == {"4": 5, "8": 0, "+Inf": 1}
    assert bins(metrics, "unknown_tokens") == {"0": 5, "0.5": 1, "+Inf": 0}
    assert sum(bins(metrics, "label").values()) == 6


@pytest.mark.parametrize(
    ("edges", "shares"), [((1, 2), (0.5, 0.5)), ((2, 1), (0.5, 0.25, 0.25)), ((1,), (0.7, 0.7)), ((1,), (1.5, -0.5))]
)
def test_what_is_no_distribution_is_refused(edges: tuple[float, ...], shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"edges|shares"):
        Binned(edges=edges, shares=shares)


def test_a_reference_of_other_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="label_shares"):
        draft(reference=REFERENCE.model_copy(update={"label_shares": (0.2, 0.3, 0.5)}))


def test_what_is_answered_again_drifts_like_any_other() -> None:
    metrics, observer = observing(draft(reference=REFERENCE))
    observer.inputs_done([Prepared((), 3)], [said("positive", 0.9)])
    observer.inputs_answered_again([Prepared((), 3), Prepared((), 9)], [said("positive", 0.9), said("negative", 0.6)])
    assert bins(metrics, "input_tokens") == {"4": 2, "8": 0, "+Inf": 1}
    assert bins(metrics, "label") == {"negative": 1, "positive": 2}
