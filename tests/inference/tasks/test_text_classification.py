"""Text in, probabilities out: the pure functions around the model."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifact.errors import ArtifactCorrupt
from artifact.manifest import Limits, TensorSpec, TextPreprocessing
from inference.errors import BackendFailed, BadInput
from inference.tasks.base import Prediction, Prepared
from inference.tasks.text import normalize_text
from inference.tasks.text_classification import TextClassification
from inference.tasks.windows import rows_of
from tests.tiny_artifact import LABELS, MAX_INPUT_TOKENS, _manifest, publish_tiny, tiny_tokenizer


@pytest.fixture
def task(tmp_path: Path) -> TextClassification:
    _, manifest = publish_tiny(tmp_path)
    return TextClassification(manifest, tiny_tokenizer())


@pytest.mark.parametrize(
    ("value", "reason"),
    [(None, "string"), (3, "string"), (["a"], "string"), ("", "empty"), (" \n\t", "empty"), ("a\ud800", "surrogate")],
)
def test_what_is_no_text_is_refused_by_name_and_never_echoed(
    task: TextClassification, value: object, reason: str
) -> None:
    with pytest.raises(BadInput, match=reason) as refused:
        task.check(value, "inputs[2]")
    assert refused.value.field == "inputs[2]"
    assert "\ud800" not in refused.value.message


def test_nul_is_text_like_any_other(task: TextClassification) -> None:
    assert task.check("good\0film", "inputs[0]") == "good\0film"
    assert task.prepare("good\0film", truncate=False).tokens > 2


def test_tokens_count_the_special_ones(task: TextClassification) -> None:
    assert task.prepare("good film", truncate=False) == Prepared([2, 4, 20, 3], 4)


def test_a_text_at_the_limit_is_whole_and_one_token_more_is_not(task: TextClassification) -> None:
    at_limit = " ".join(["good"] * (MAX_INPUT_TOKENS - 2))
    assert task.prepare(at_limit, truncate=False).tokens == MAX_INPUT_TOKENS
    longer = task.prepare(at_limit + " good", truncate=False)
    assert (longer.excess, longer.tokens) == (True, MAX_INPUT_TOKENS + 1)


@pytest.mark.parametrize("words", [100, 100_000])
def test_truncation_keeps_the_head_and_the_closing_token_and_is_flagged(task: TextClassification, words: int) -> None:
    cut = task.prepare(" ".join(["bad", *["good"] * words]), truncate=True)
    assert cut.truncated
    assert (cut.tokens, len(cut.ids)) == (MAX_INPUT_TOKENS, MAX_INPUT_TOKENS)
    assert (cut.ids[0], cut.ids[1], cut.ids[-1]) == (2, 10, 3)


@given(st.text("goodbad film.", min_size=1).filter(str.strip), st.integers(3, 9))
def test_cut_texts_are_what_a_truncating_tokenizer_gives(text: str, most: int) -> None:
    manifest = _manifest("tiny").model_copy(update={"limits": Limits(max_input_tokens=most)})
    truncating = tiny_tokenizer()
    truncating.enable_truncation(most)
    prepared = TextClassification(manifest, tiny_tokenizer()).prepare(text, truncate=True)
    assert list(prepared.ids) == truncating.encode(normalize_text(text)).ids


def test_a_huge_text_of_few_tokens_is_not_mistaken_for_a_long_one(task: TextClassification) -> None:
    prepared = task.prepare("good " + "x" * 50_000, truncate=False)
    assert (prepared.tokens, prepared.excess) == (4, False)


def test_padding_goes_to_the_end_and_is_masked(task: TextClassification) -> None:
    arrays = task.collate([Prepared([2, 4, 3], 3), Prepared([2, 3], 2)])
    assert arrays["input_ids"].tolist() == [[2, 4, 3], [2, 3, 0]]
    assert arrays["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert set(arrays) == {"input_ids", "attention_mask"}


def test_type_ids_are_made_when_the_model_has_them(tmp_path: Path) -> None:
    _, manifest = publish_tiny(tmp_path)
    spec = TensorSpec(name="token_type_ids", dtype="int64", shape=("batch", "sequence"))
    task = TextClassification(manifest.model_copy(update={"inputs": (*manifest.inputs, spec)}), tiny_tokenizer())
    assert task.collate([Prepared([2, 3], 2)])["token_type_ids"].tolist() == [[0, 0]]


def test_scores_are_probabilities_in_label_order(task: TextClassification) -> None:
    (prediction,) = task.decode({"logits": np.array([[1.0, 3.0]], dtype=np.float32)})
    assert isinstance(prediction, Prediction)
    assert prediction.label == LABELS[1]
    assert sum(prediction.scores) == pytest.approx(1)
    assert prediction.score == prediction.scores[1] == pytest.approx(1 / (1 + np.exp(-2)))


def test_a_row_that_is_not_finite_fails_alone(task: TextClassification) -> None:
    rows = task.decode({"logits": np.array([[np.nan, 1], [0, 1], [np.inf, 0]], dtype=np.float32)})
    assert [type(row) for row in rows] == [BackendFailed, Prediction, BackendFailed]


@pytest.mark.parametrize("shape", [(2,), (1, 3), (1, 2, 1)])
def test_outputs_of_another_shape_are_the_backend_s_failure(task: TextClassification, shape: tuple[int, ...]) -> None:
    with pytest.raises(BackendFailed, match="shape"):
        task.decode({"logits": np.zeros(shape, dtype=np.float32)})


def test_a_text_is_cleaned_as_the_manifest_says(tmp_path: Path) -> None:
    _, manifest = publish_tiny(tmp_path)
    steps = TextPreprocessing(normalization="transforms", transforms=("html", "stop_words"), stop_words=("the",))
    task = TextClassification(manifest.model_copy(update={"preprocessing": steps}), tiny_tokenizer())
    assert task.prepare("the <b>good</b> film", truncate=False) == task.prepare("good film", truncate=False)
    assert task.prepare("The <br/>", truncate=True) == Prepared((), 0, blank=True)


def _windowed(window_tokens: int, most: int = MAX_INPUT_TOKENS) -> TextClassification:
    changed = {
        "limits": Limits(max_input_tokens=most),
        "preprocessing": TextPreprocessing(window_tokens=window_tokens),
    }
    return TextClassification(_manifest("tiny").model_copy(update=changed), tiny_tokenizer())


def test_a_text_of_more_tokens_than_a_window_is_read_in_windows_within_special_tokens() -> None:
    task = _windowed(5)
    assert task.prepare("good bad film", truncate=False) == Prepared([2, 4, 10, 20, 3], 5)
    prepared = task.prepare("good bad film good", truncate=False)
    assert (prepared.tokens, prepared.windows) == (6, 2)
    assert [row.ids for row in rows_of(prepared)] == [[2, 4, 10, 3], [2, 20, 4, 3]]


@given(st.lists(st.sampled_from(["good", "bad", "film", "strange"]), min_size=1, max_size=80), st.integers(3, 30))
def test_windows_hold_the_text_in_order_and_count_what_was_sent(words: list[str], window: int) -> None:
    most = 40
    text = " ".join(words)
    prepared, whole = (task.prepare(text, truncate=True) for task in (_windowed(window, most), _windowed(most, most)))
    assert (prepared.tokens, prepared.truncated, prepared.unknown) == (whole.tokens, whole.truncated, whole.unknown)
    rows = rows_of(prepared)
    assert all(row.tokens == len(row.ids) <= max(window, 3) for row in rows)
    assert [each for row in rows for each in row.ids[1:-1]] == list(whole.ids[1:-1])
    assert all((row.ids[0], row.ids[-1]) == (2, 3) for row in rows)


def test_what_looks_like_a_special_token_in_a_text_stays_in_it() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    manifest = _manifest("tiny").model_copy(update={"preprocessing": TextPreprocessing(window_tokens=4)})
    prepared = TextClassification(manifest, tokenizer).prepare("[CLS] good bad [SEP]", truncate=False)
    assert [row.ids for row in rows_of(prepared)] == [[2, 2, 4, 3], [2, 10, 3, 3]]


def test_a_text_beyond_the_longest_is_refused_or_cut_before_it_is_read_in_windows() -> None:
    task = _windowed(10, most=20)
    assert task.prepare("good " * 19, truncate=False) == Prepared((), 21, excess=True)
    cut = task.prepare("good " * 19, truncate=True)
    assert (cut.tokens, cut.truncated, cut.windows) == (20, True, 3)


def test_a_window_without_room_for_a_token_is_refused() -> None:
    with pytest.raises(ArtifactCorrupt, match="window_tokens"):
        _windowed(2)


LOGITS = st.lists(st.tuples(*[st.floats(-60, 60, width=32)] * 2), min_size=1, max_size=12)


@given(LOGITS)
def test_merging_is_the_softmax_of_the_mean_of_the_logits(logits: list[tuple[float, float]]) -> None:
    task = _windowed(10)
    rows = [row for row in task.decode({"logits": np.array(logits, dtype=np.float32)}) if isinstance(row, Prediction)]
    mean = np.mean(np.array(logits, dtype=np.float32).astype(np.float64), axis=0)
    merged = task.merge(rows)
    expected = np.exp(mean - mean.max()) / np.exp(mean - mean.max()).sum()
    assert merged.scores == pytest.approx(expected.tolist(), abs=1e-9)
    assert merged.score == max(merged.scores)
    assert merged.label == LABELS[int(np.argmax(merged.scores))]


def test_a_window_that_is_certain_beyond_any_float_merges_to_a_number() -> None:
    task = _windowed(10)
    (sure,) = task.decode({"logits": np.array([[-2000.0, 2000.0]], dtype=np.float32)})
    (other,) = task.decode({"logits": np.array([[1.0, 0.0]], dtype=np.float32)})
    assert isinstance(sure, Prediction)
    assert isinstance(other, Prediction)
    assert task.merge([sure, other]).label == LABELS[1]
    assert np.isfinite(task.merge([sure, other]).scores).all()
