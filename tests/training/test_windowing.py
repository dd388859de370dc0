"""Texts as rows, whole or in windows: what is learnt from and what torch answers."""

import random
from pathlib import Path

import numpy as np
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from tests.training import tiny
from training.classifier import load_tokenizer, predict_logits, row_logits
from training.recipe import TrainingSection
from training.windowing import averaged, encode, training_rows, training_turns, windowed

LONG = " ".join(random.Random(3).choice(tiny.PLAIN) for _ in range(40))
TEXTS = ("film", LONG, "a story of war", f"{LONG} {LONG}")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> transformers.PreTrainedTokenizerFast:
    return load_tokenizer(tiny.encoder_folder(tmp_path_factory.mktemp("encoder")).path)


def test_without_a_window_every_text_is_one_row(tokenizer: transformers.PreTrainedTokenizerFast) -> None:
    rows, owners = windowed(tokenizer, TEXTS, 32, None)
    assert rows == encode(tokenizer, TEXTS, 32)
    assert [len(row["input_ids"]) for row in rows] == [3, 32, 6, 32]
    assert owners.tolist() == [0, 1, 2, 3]


def test_windows_hold_every_token_once_within_special_ones(tokenizer: transformers.PreTrainedTokenizerFast) -> None:
    rows, owners = windowed(tokenizer, TEXTS, 70, 16)
    assert np.bincount(owners).tolist() == [1, 3, 1, 5]
    for number, text in enumerate(TEXTS):
        (whole,) = encode(tokenizer, [text], 70)
        mine = [row for row, owner in zip(rows, owners, strict=True) if owner == number]
        assert all(len(row["input_ids"]) <= 16 for row in mine)
        own = [each for row in mine for each in row["input_ids"][1:-1]]
        assert own == whole["input_ids"][1:-1]
        ends = whole["input_ids"][0], whole["input_ids"][-1]
        assert all((row["input_ids"][0], row["input_ids"][-1]) == ends for row in mine)
        assert all(row.keys() == whole.keys() for row in mine)
        assert all(len(values) == len(row["input_ids"]) for row in mine for values in row.values())


def test_a_text_of_which_nothing_is_left_is_a_row_all_the_same(tokenizer: transformers.PreTrainedTokenizerFast) -> None:
    rows, owners = windowed(tokenizer, ["", LONG], 70, 16)
    assert (len(rows[0]["input_ids"]), owners.tolist()) == (2, [0, 1, 1, 1])
    assert len(training_rows(tokenizer, [""], TrainingSection(window_tokens=16))[0]["input_ids"]) == 2


@given(st.lists(st.integers(1, 6), max_size=8), st.integers(1, 4))
def test_the_mean_is_that_of_each_text_and_of_one_row_the_row_itself(counts: list[int], labels: int) -> None:
    owners = np.repeat(np.arange(len(counts)), counts)
    logits = np.random.default_rng(len(owners)).normal(size=(len(owners), labels)).astype(np.float32)
    order = np.random.default_rng(1).permutation(len(owners))
    found = averaged(logits[order], owners[order])
    assert found.shape == (len(counts), labels)
    for number, count in enumerate(counts):
        mine = logits[owners == number]
        assert found[number] == pytest.approx(mine.astype(np.float64).mean(axis=0), rel=1e-6, abs=1e-7)
        assert count > 1 or (found[number] == mine[0]).all()


def test_the_windows_that_serving_reads_take_turns(tokenizer: transformers.PreTrainedTokenizerFast) -> None:
    section = TrainingSection(window_tokens=16, max_text_tokens=70)
    served, owners = windowed(tokenizer, TEXTS, 70, 16)
    for number, turns in enumerate(training_turns(tokenizer, TEXTS, section)):
        mine = [row for row, owner in zip(served, owners, strict=True) if owner == number]
        first = mine.index(turns[0])
        assert turns == mine[first:] + mine[:first]


def test_which_window_comes_first_differs_between_texts_and_seeds(
    tokenizer: transformers.PreTrainedTokenizerFast,
) -> None:
    texts = [" ".join(random.Random(seed).choices(tiny.PLAIN, k=40)) for seed in range(40)]
    places = []
    for seed in (1, 2, 1):
        section = TrainingSection(window_tokens=16, seed=seed)
        served, owners = windowed(tokenizer, texts, section.max_text_tokens, 16)
        turns = training_turns(tokenizer, texts, section)
        places.append(
            [
                [row for row, owner in zip(served, owners, strict=True) if owner == number].index(rows[0])
                for number, rows in enumerate(turns)
            ]
        )
    assert set(places[0]) == {0, 1, 2}
    assert places[0] == places[2] != places[1]


def test_training_rows_are_cut_or_one_window_each(tokenizer: transformers.PreTrainedTokenizerFast) -> None:
    cut = training_turns(tokenizer, TEXTS, TrainingSection(max_tokens=20), positions=12)
    assert cut == [[row] for row in encode(tokenizer, TEXTS, 12)]
    section = TrainingSection(max_tokens=8, window_tokens=16, max_text_tokens=70)
    rows = training_rows(tokenizer, TEXTS, section)
    served, owners = windowed(tokenizer, TEXTS, 70, 16)
    assert len(rows) == len(TEXTS)
    for number, row in enumerate(rows):
        assert row in [each for each, owner in zip(served, owners, strict=True) if owner == number]


def test_torch_answers_with_the_mean_over_the_windows(tmp_path: Path) -> None:
    encoder = tiny.encoder_folder(tmp_path)
    tokenizer = load_tokenizer(encoder.path)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(encoder.path, num_labels=2).eval()
    found = predict_logits(model, tokenizer, TEXTS, max_tokens=200, window_tokens=16, batch_size=3)
    rows, owners = windowed(tokenizer, TEXTS, 200, 16)
    each = row_logits(model, tokenizer, rows)
    for number in range(len(TEXTS)):
        assert found[number] == pytest.approx(each[owners == number].mean(axis=0), abs=1e-5)
