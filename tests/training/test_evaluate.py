"""training/evaluate.py: against scikit-learn, against formulas, and against known coverage."""

import numpy as np
import numpy.typing as npt
import pytest
from sklearn import metrics as sklearn

from training.errors import DataInvalid
from training.evaluate import as_plain, evaluate, paired_accuracy_difference, softmax

Scores = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def made(rows: int, labels: int, *, seed: int = 0, skill: float = 1.0) -> tuple[Scores, Labels]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(labels, size=rows)
    logits = rng.normal(size=(rows, labels)) + skill * np.eye(labels)[truth]
    return softmax(logits), truth


def test_two_labels_agree_with_scikit_learn() -> None:
    scores, truth = made(500, 2)
    scores = np.round(scores, 2)  # ties in the ranking
    found = as_plain(evaluate(scores, truth, ["no", "yes"], resamples=10).metrics)
    predicted = scores.argmax(axis=1)
    assert found["accuracy"] == pytest.approx(sklearn.accuracy_score(truth, predicted))
    assert found["precision"] == pytest.approx(sklearn.precision_score(truth, predicted))
    assert found["recall"] == pytest.approx(sklearn.recall_score(truth, predicted))
    assert found["f1"] == pytest.approx(sklearn.f1_score(truth, predicted))
    assert found["roc_auc"] == pytest.approx(sklearn.roc_auc_score(truth, scores[:, 1]))
    assert found["log_loss"] == pytest.approx(sklearn.log_loss(truth, scores), rel=1e-6)


def test_more_labels_agree_with_scikit_learn() -> None:
    scores, truth = made(400, 4)
    found = as_plain(evaluate(scores, truth, list("abcd"), resamples=10).metrics)
    predicted = scores.argmax(axis=1)
    assert found["precision"] == pytest.approx(sklearn.precision_score(truth, predicted, average="macro"))
    assert found["recall"] == pytest.approx(sklearn.recall_score(truth, predicted, average="macro"))
    assert found["f1"] == pytest.approx(sklearn.f1_score(truth, predicted, average="macro"))
    assert found["roc_auc"] == pytest.approx(sklearn.roc_auc_score(truth, scores, multi_class="ovr"))


def test_the_confusion_matrix_has_true_labels_in_rows() -> None:
    scores, truth = made(300, 3)
    found = evaluate(scores, truth, list("abc"), resamples=10)
    expected = sklearn.confusion_matrix(truth, scores.argmax(axis=1))
    assert found.confusion_matrix == tuple(tuple(row) for row in expected.tolist())
    assert found.roc == ()


def test_resampled_metrics_are_those_of_the_resampled_rows() -> None:
    """The matrix products must say what recomputing on repeated rows would."""
    from training.evaluate import _Parts

    scores, truth = made(60, 2)
    drawn = np.random.default_rng(1).integers(60, size=60)
    weights = np.bincount(drawn, minlength=60)[None, :].astype(float)
    weighted = _Parts.of(scores, truth).metrics(weights)
    repeated = _Parts.of(scores[drawn], truth[drawn]).metrics(np.ones((1, 60)))
    for name, value in repeated.items():
        assert weighted[name][0] == pytest.approx(value[0]), name


def test_calibration_error_of_a_liar_and_of_an_honest_model() -> None:
    rng = np.random.default_rng(0)
    chance = rng.uniform(0.5, 1, size=20_000)
    scores = np.stack([1 - chance, chance], axis=1)
    honest = (rng.uniform(size=20_000) < chance).astype(np.int64)
    coin = rng.integers(2, size=20_000)
    assert evaluate(scores, honest, ["a", "b"], resamples=20).metrics["calibration_error"].value < 0.02
    assert evaluate(scores, coin, ["a", "b"], resamples=20).metrics["calibration_error"].value == pytest.approx(
        0.25, abs=0.02
    )


def test_calibration_bins_hold_every_row_once() -> None:
    scores, truth = made(500, 2)
    scores[0] = (0.0, 1.0)
    bins = evaluate(scores, truth, ["a", "b"], resamples=10).calibration
    assert sum(each.count for each in bins) == 500
    assert all(each.low < each.confidence <= each.high for each in bins)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    covered = 0
    for seed in range(120):
        truth = np.random.default_rng(seed).uniform(size=200) < 0.8
        scores = np.stack([1.0 - truth, truth * 1.0], axis=1)
        found = evaluate(scores, np.ones(200, dtype=np.int64), ["no", "yes"], resamples=300, seed=seed)
        covered += found.metrics["accuracy"].low <= 0.8 <= found.metrics["accuracy"].high
    assert 0.88 <= covered / 120 <= 1.0


def test_the_same_seed_gives_the_same_intervals() -> None:
    scores, truth = made(100, 2)
    first, second = (evaluate(scores, truth, ["a", "b"], resamples=50, seed=3) for _ in range(2))
    assert first == second
    assert evaluate(scores, truth, ["a", "b"], resamples=50, seed=4) != first


def test_resamples_are_drawn_in_pieces_when_there_are_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.evaluate._CELLS_AT_ONCE", 250)
    scores, truth = made(100, 2)
    found = evaluate(scores, truth, ["a", "b"], resamples=50).metrics["accuracy"]
    assert found.low < found.value < found.high


def test_the_roc_curve_runs_from_corner_to_corner() -> None:
    scores, truth = made(200, 2)
    roc = evaluate(scores, truth, ["a", "b"], resamples=10).roc
    assert roc[0] == (0.0, 0.0)
    assert roc[-1] == (1.0, 1.0)


def test_a_paired_difference_is_narrower_than_two_intervals() -> None:
    scores, truth = made(1000, 2, skill=2)
    slightly_worse = scores.copy()
    slightly_worse[:10] = slightly_worse[:10, ::-1]
    found = paired_accuracy_difference(slightly_worse, scores, truth)
    accuracy = evaluate(scores, truth, ["a", "b"]).metrics["accuracy"]
    assert found.value == pytest.approx((slightly_worse.argmax(1) == truth).mean() - (scores.argmax(1) == truth).mean())
    assert found.high - found.low < (accuracy.high - accuracy.low) / 2
    assert paired_accuracy_difference(scores, scores, truth).low == 0.0


def test_one_kind_of_row_has_no_area_but_an_accuracy() -> None:
    scores, _ = made(50, 2)
    found = evaluate(scores, np.ones(50, dtype=np.int64), ["a", "b"], resamples=10)
    assert "roc_auc" not in found.metrics
    assert found.roc == ()
    assert 0 < found.metrics["accuracy"].value < 1


@pytest.mark.parametrize(
    ("scores", "sentence"),
    [
        (np.zeros((0, 2)), "no rows"),
        (np.zeros((2, 3)), "scores of shape"),
        (np.full((2, 2), np.nan), "not all finite"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(scores: Scores, sentence: str) -> None:
    with pytest.raises(DataInvalid, match=sentence):
        evaluate(scores, np.zeros(len(scores), dtype=np.int64), ["a", "b"])


def test_softmax_of_huge_logits_is_finite() -> None:
    np.testing.assert_allclose(softmax(np.array([[1e4, 0.0]], dtype=np.float32)), [[1.0, 0.0]])
