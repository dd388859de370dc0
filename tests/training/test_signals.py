"""training/signals.py: words that tell, labels that are wrong on purpose, sets that differ on purpose."""

import math
import random

import numpy as np
import pytest

from tests.training import tiny
from training.signals import bag_of, find_suspects, giveaways, how_far_apart, telling_words


def reviews(rows: int = 300) -> tuple[list[str], np.ndarray]:
    table = tiny.table(rows)
    return [row.text for row in table.rows], np.array([row.label for row in table.rows], dtype=np.int64)


def test_the_words_that_tell_a_label_are_its_own() -> None:
    texts, labels = reviews()
    bag = bag_of(texts)
    assert {each.word for each in telling_words(bag, labels, 1)[:8]} == set(tiny.GOOD)
    assert {each.word for each in telling_words(bag, labels, 0)[:8]} == set(tiny.BAD)
    first = telling_words(bag, labels, 1)[0]
    assert first.rows_here == sum(first.word in text.split() for text in texts)
    assert first.rows_elsewhere == 0
    assert all(each.z > 2 for each in telling_words(bag, labels, 0))


def test_the_ratio_is_that_of_the_paper() -> None:
    texts = ["a b", "a b", "a c", "a d", "b d", "b d"]
    labels = np.array([0, 0, 0, 1, 1, 1])
    bag = bag_of(texts * 50)
    found = {each.word: each for each in telling_words(bag, np.tile(labels, 50), 0)}
    here, elsewhere, prior = 150, 50, 0.1 * 200
    rows_here, rows_elsewhere = 150 + 100 + 50, 50 + 100 + 150
    one = (here + prior) / (rows_here + 0.1 * 600 - here - prior)
    other = (elsewhere + prior) / (rows_elsewhere + 0.1 * 600 - elsewhere - prior)
    expected = math.log(one / other) / math.sqrt(1 / (here + prior) + 1 / (elsewhere + prior))
    assert found["a"].z == pytest.approx(expected)


def test_a_word_that_gives_its_label_away_is_named() -> None:
    texts, labels = reviews(600)
    marked = [
        f"{text} zeppelin" if label and place % 4 == 1 else text
        for place, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]
    found = giveaways(bag_of(marked), labels, 1)
    assert "zeppelin" in {each.word for each in found}
    assert "zeppelin" not in {each.word for each in giveaways(bag_of(marked), labels, 0)}


def test_where_nearly_all_rows_have_one_label_no_word_gives_it_away() -> None:
    texts, labels = reviews(400)
    assert giveaways(bag_of(texts), (np.arange(400) < 397).astype(np.int64), 1) == ()
    assert giveaways(bag_of(texts), labels, 1) != ()


def test_labels_that_were_turned_round_are_doubted_first() -> None:
    texts, labels = reviews(400)
    wrong = random.Random(1).sample(range(400), 12)
    turned = labels.copy()
    turned[wrong] = 1 - turned[wrong]
    found = find_suspects(bag_of(texts), turned)
    assert found is not None
    assert len({each.row for each in found.rows} & set(wrong)) >= 6
    assert {each.row for each in found.rows[:6]} <= set(wrong)
    assert all(each.suggested == labels[each.row] for each in found.rows[:6])
    assert found.accuracy > 0.9
    assert found.rows[0].probability_suggested > found.rows[0].probability_given


@pytest.mark.parametrize("labels", [[0] * 40, [0] * 37 + [1] * 3])
def test_labels_too_rare_to_learn_are_not_doubted(labels: list[int]) -> None:
    texts, _ = reviews(40)
    assert find_suspects(bag_of(texts), np.array(labels)) is None


def test_a_set_is_close_to_its_other_half_and_far_from_another_subject() -> None:
    texts, _ = reviews(400)
    near = how_far_apart(texts[:200], texts[200:])
    assert near.auc is not None
    assert 0.35 < near.auc < 0.65
    assert near.unknown_words == 0
    far = how_far_apart(texts, [f"the parcel came late and the box was torn {number}" for number in range(100)])
    assert far.auc is not None
    assert far.auc > 0.95
    assert far.unknown_words > 0.3
    assert {"parcel", "box"} <= {each.word for each in far.second}


def test_too_few_texts_are_not_compared() -> None:
    assert how_far_apart(["a b", "c d"], ["a b"]).auc is None


def test_texts_without_words_have_an_empty_bag() -> None:
    bag = bag_of(["🙂", "!"])
    assert bag.has.shape == (2, 0)
    assert telling_words(bag, np.array([0, 1]), 0) == ()
    assert find_suspects(bag_of(["🙂"] * 20), np.array([0, 1] * 10)) is None
