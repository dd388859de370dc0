"""A served model, from a published artifact to its answers."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifact.errors import ArtifactCorrupt, ArtifactNotFound
from artifact.repository import open_artifact
from inference.batcher import SilentObserver
from inference.errors import BadInput, NotReady
from inference.model import Model, Options, Request
from inference.plan import Plan
from inference.policy import Limits
from tests.tiny_artifact import GOLDEN_TEXTS, publish_tiny


def test_it_answers_from_a_published_artifact(tmp_path: Path) -> None:
    model = Model.load(open_artifact(publish_tiny(tmp_path)[0]))
    answer = model.predict(["a very good film", "a boring mess"])
    assert [prediction.label for prediction in answer.predictions] == ["positive", "negative"]
    assert answer.input_tokens == (6, 5)
    assert answer.truncated == (False, False)
    model.close()


def test_the_answer_is_the_same_in_any_company(tmp_path: Path) -> None:
    model = Model.load(open_artifact(publish_tiny(tmp_path)[0]))
    texts = ["good", "a bad film " * 9, *GOLDEN_TEXTS, "the best"]
    (together,) = model.predict_batches([texts])
    for text, accompanied in zip(texts, together, strict=True):
        (alone,) = model.predict([text]).predictions
        assert alone.label == accompanied.label
        assert alone.scores == pytest.approx(accompanied.scores, abs=1e-6)
    model.close()


@settings(max_examples=25, deadline=None)
@given(data=st.data(), lengths=st.lists(st.integers(1, 60), min_size=1, max_size=8), window=st.integers(4, 30))
def test_a_text_in_windows_is_answered_alike_alone_among_others_and_in_any_order(
    windowed: dict[int, Model], data: st.DataObject, lengths: list[int], window: int
) -> None:
    words = st.sampled_from(["good", "great", "bad", "awful", "film", "movie", "the", "a", "very", "not"])
    texts = [" ".join(data.draw(st.lists(words, min_size=n, max_size=n))) for n in lengths]
    model = windowed[window % len(windowed)]
    (together,) = model.predict_batches([texts])
    queued = model.predict(texts).predictions
    for text, accompanied, other in zip(texts, together, queued, strict=True):
        (alone,) = model.predict([text]).predictions
        assert alone.label == accompanied.label == other.label or abs(alone.scores[0] - alone.scores[1]) < 1e-5
        assert alone.scores == pytest.approx(accompanied.scores, abs=1e-6)
        assert alone.scores == pytest.approx(other.scores, abs=1e-6)


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Model]]:
    """Models with windows of several sizes, workers and batch sizes: windows run in whatever order comes of it."""
    root = tmp_path_factory.mktemp("windowed")
    models = {
        number: Model.load(
            open_artifact(publish_tiny(root, window_tokens=window)[0]),
            options=Options(workers=workers, limits=Limits(max_batch_size=size)),
        )
        for number, (window, workers, size) in enumerate([(4, 3, 1), (9, 2, 3), (14, 1, 16)])
    }
    yield models
    for model in models.values():
        model.close()


def test_a_text_in_windows_is_answered_by_the_mean_of_their_logits(windowed: dict[int, Model]) -> None:
    model = windowed[0]
    answer = model.predict(["good bad film", "good bad bad bad"])
    assert (answer.input_tokens, answer.windows) == ((5, 6), (2, 2))
    parts = model.predict(["good bad", "film", "bad bad"]).predictions
    logits = [np.log(part.scores) for part in parts]
    for found, expected in zip(answer.predictions, (logits[0] + logits[1], logits[0] + logits[2]), strict=True):
        powers = np.exp(expected / 2)
        assert found.scores == pytest.approx((powers / powers.sum()).tolist())


def test_golden_answers_that_do_not_come_out_stop_the_load(tmp_path: Path) -> None:
    path, _ = publish_tiny(tmp_path, spoil_golden=True)
    with pytest.raises(ArtifactCorrupt, match="golden input 0"):
        Model.load(open_artifact(path))


def test_an_unknown_variant_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ArtifactNotFound, match=r"no variant 'int3'; it has fp32"):
        Model.load(open_artifact(publish_tiny(tmp_path)[0]), variant="int3")


def test_bad_input_is_refused_before_it_is_queued(tmp_path: Path) -> None:
    model = Model.load(open_artifact(publish_tiny(tmp_path)[0]))
    with pytest.raises(BadInput, match=r"^inputs: "):
        model.submit(Request([]), lambda _: None)
    with pytest.raises(BadInput, match=r"^inputs\[1\]: "):
        model.predict(["good", 5])
    model.close()


def test_a_closed_model_takes_nothing_more(tmp_path: Path) -> None:
    model = Model.load(open_artifact(publish_tiny(tmp_path)[0]))
    model.close()
    with pytest.raises(NotReady):
        model.predict(["good"])


def test_it_says_how_it_runs(tmp_path: Path) -> None:
    artifact = open_artifact(publish_tiny(tmp_path)[0])
    model = Model.load(artifact, options=Options(workers=3, threads=2))
    assert model.plan == Plan("fp32", "onnxruntime", 3, 2)
    model.close()


@pytest.mark.parametrize(("window", "lengths"), [(None, [8, 18, 20, 20]), (12, [8, 12, 12, 12])])
def test_warming_up_goes_through_the_workers_with_the_recorded_lengths(
    tmp_path: Path, window: int | None, lengths: list[int]
) -> None:
    """A longer text is more rows of lengths that have been there."""
    artifact = open_artifact(publish_tiny(tmp_path, window_tokens=window)[0])
    seen: list[tuple[int, int]] = []

    class Watching(SilentObserver):
        def batch_done(self, **facts: object) -> None:
            seen.append((int(str(facts["inputs"])), int(str(facts["real_tokens"]))))

    model = Model.open(artifact, options=Options(workers=2))
    model.observe(Watching())
    model.warm_up()
    model.close()
    assert [tokens for inputs, tokens in seen[:4] if inputs == 1] == lengths
    assert sum(inputs for inputs, _ in seen) == 4 + 2 * Limits().max_batch_size


def test_a_response_cache_starts_empty_and_ends_with_its_model(tmp_path: Path) -> None:
    artifacts = [open_artifact(publish_tiny(tmp_path)[0]) for _ in range(2)]
    first, second = (Model.load(each, options=Options(workers=1, response_cache_bytes=10_000)) for each in artifacts)
    assert first.batcher.cached_bytes == 0
    answers = [first.predict([GOLDEN_TEXTS[0], "good"], truncate=True) for _ in range(2)]
    assert [answer.cached for answer in answers] == [frozenset(), {0, 1}]
    assert answers[0].predictions == answers[1].predictions
    assert second.predict(["good"], truncate=True).cached == frozenset()
    first.close()
    second.close()


def test_what_is_measured_or_judged_is_computed(tmp_path: Path) -> None:
    model = Model.open(open_artifact(publish_tiny(tmp_path)[0]), options=Options(response_cache_bytes=10_000))
    assert [model.predict(["good"]).cached for _ in range(2)] == [frozenset()] * 2
    model.close()


def test_nothing_is_remembered_unless_asked(tmp_path: Path) -> None:
    model = Model.load(open_artifact(publish_tiny(tmp_path)[0]))
    assert [model.predict(["good"]).cached for _ in range(2)] == [frozenset()] * 2
    assert model.batcher.cached_bytes == 0
    model.close()
