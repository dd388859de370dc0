"""training/robustness.py: changes are small, drawn from the seed, and what they do to labels is counted."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.robustness import CHANGES, Floats, measure_robustness, typos

TEXTS = tuple(f"a rather good film number {number} and Quite long too" for number in range(40))
LABELS = np.ones(40, dtype=np.int64)


def steady(texts: Sequence[str]) -> Floats:
    return np.tile([0.2, 0.8], (len(texts), 1))


def test_typing_errors_keep_most_of_the_text() -> None:
    text = " ".join(["remarkable"] * 17) + " a b, cd"
    changed = typos(text, random.Random(1))
    assert changed.split()[-3:] == ["a", "b,", "cd"]
    assert sum(word != "remarkable" for word in changed.split()[:17]) == 3
    assert all(abs(len(word) - 10) <= 1 for word in changed.split()[:17])


@given(st.text(max_size=60), st.integers(0, 99))
def test_no_text_is_too_strange_to_be_changed(text: str, seed: int) -> None:
    for change in CHANGES.values():
        assert change(text, random.Random(seed)) == change(text, random.Random(seed))


@pytest.mark.parametrize("text", ["映画はとても良かった", "这部电影非常好看", "фильм"])
def test_other_scripts_get_typing_errors_too(text: str) -> None:
    changed = typos(text, random.Random(2))
    assert abs(len(changed) - len(text)) <= 1
    assert changed != text


def test_a_model_that_does_not_move_does_not_flip() -> None:
    found = measure_robustness(TEXTS, LABELS, steady(TEXTS), steady, at_most=25)
    assert [each.name for each in found] == list(CHANGES)
    for each in found:
        assert each.rows == 25
        assert (each.accuracy_before.value, each.accuracy_after.value, each.flip_rate.value) == (1.0, 1.0, 0.0)
        assert each.flip_rate.high > 0.05
        assert each.difference.value == 0.0


def test_flips_and_lost_accuracy_are_counted() -> None:
    def shy_of_capitals(texts: Sequence[str]) -> Floats:
        positive = np.array([0.1 if text.isupper() else 0.8 for text in texts])
        return np.stack([1 - positive, positive], axis=1)

    found = {each.name: each for each in measure_robustness(TEXTS, LABELS, steady(TEXTS), shy_of_capitals, at_most=99)}
    assert found["upper case"].flip_rate.value == 1.0
    assert found["upper case"].difference.value == -1.0
    assert found["lower case"].flip_rate.value == 0.0


def test_rows_a_change_leaves_alone_do_not_count() -> None:
    texts = ("all small letters here", "Not all of them")
    found = measure_robustness(texts, LABELS[:2], steady(texts), steady, at_most=9)
    assert {each.name: each.rows for each in found}["lower case"] == 1
    digits = ("12 34", "56 78")
    found = measure_robustness(TEXTS, LABELS, steady(TEXTS), steady, at_most=9, clean=str.lower)
    assert "upper case" not in [each.name for each in found]
    names = [each.name for each in measure_robustness(digits, LABELS[:2], steady(digits), steady, at_most=9)]
    assert names == ["negation", "emoji"]


def test_the_seed_decides_the_sample_and_the_changes() -> None:
    def asked(seed: int, texts: Sequence[str] = TEXTS, at_most: int = 10) -> list[str]:
        seen: list[str] = []

        def remember(texts: Sequence[str]) -> Floats:
            seen.extend(texts)
            return steady(texts)

        measure_robustness(texts, LABELS[: len(texts)], steady(texts), remember, at_most=at_most, seed=seed)
        return seen

    assert asked(1) == asked(1)
    assert asked(1) != asked(2)
    # A row is changed alike whatever the other rows are, and not as another row is.
    alone, all_rows = asked(1, TEXTS[:1], 99), asked(1, TEXTS, 99)
    assert set(alone) <= set(all_rows)
    assert set(all_rows).isdisjoint(asked(2, TEXTS[:1], 99)[:1])


def test_nothing_is_changed_when_not_asked() -> None:
    assert measure_robustness(TEXTS, LABELS, steady(TEXTS), steady, at_most=0) == ()
