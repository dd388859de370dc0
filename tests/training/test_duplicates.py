"""training/duplicates.py: nearly the same is found, in any script; merely alike is not."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training import tiny
from training.duplicates import find_twins, shingles, similarity

LONG = "the river was wide and the night was cold but nobody in the little house by the water wanted to leave it"
CHINESE = "这部电影的故事非常感人，演员的表演也很出色，我和朋友们都很喜欢。"
JAPANESE = "この映画はとても感動的で、俳優の演技も素晴らしく、友達もみんな気に入りました。"
THAI = "หนังเรื่องนี้ซาบซึ้งมาก นักแสดงก็เล่นได้ยอดเยี่ยม ฉันและเพื่อนชอบกันทุกคน"


def test_shingles_see_words_only() -> None:
    assert shingles("Good, FILM!") == shingles("good film") == {"good ", "ood f", "od fi", "d fil", " film"}
    assert shingles("ok") == {"ok"}


def test_shingles_keep_vowel_signs_and_tone_marks() -> None:
    assert shingles("ที่นี่") != shingles("ทานา")
    assert shingles("की") != shingles("कु")


def test_two_characters_of_chinese_are_a_shingle() -> None:
    assert shingles("很好看。") == {"很好", "好看"}
    assert shingles("แมวดี") == {"แมวดี"}


@pytest.mark.parametrize(
    ("text", "other"),
    [
        (LONG, LONG.replace("cold", "dark")),
        (CHINESE, CHINESE.replace("朋友", "家人")),
        (JAPANESE, JAPANESE.replace("友達", "家族")),
        (THAI, f"{THAI}ค่ะ!"),
    ],
)
def test_a_word_changed_is_nearly_the_same(text: str, other: str) -> None:
    assert find_twins(["something else", text, other]).tolist() == [-1, -1, 1]


@pytest.mark.parametrize(
    "texts",
    [
        ["这部电影很好看", "那家餐厅的菜很好吃", "今天的天气不错", "他昨天没有去上班"],
        ["とても良い映画", "とても悪い食事", "明日は雨が降る", "犬が好きです"],
        ["หนังดีมาก", "อาหารแย่มาก", "พรุ่งนี้ฝนตก", "ฉันชอบหมา"],
        ["🙂🙂", "?!", "…", "a", ""],
    ],
)
def test_short_texts_in_any_script_are_not_all_alike(texts: list[str]) -> None:
    assert find_twins(texts).tolist() == [-1] * len(texts)


def test_a_chain_of_changes_ends_at_its_first_link() -> None:
    words = LONG.split()
    chain = [LONG, " ".join([*words[:-2], "close", "door"]), " ".join(["some", "big", *words[2:-2], "close", "door"])]
    assert similarity(chain[0], chain[2]) < 0.8 <= similarity(chain[0], chain[1])
    assert find_twins(chain).tolist() == [-1, 0, -1]


def test_fixed_texts_survive_and_are_all_the_others_are_compared_with() -> None:
    texts = [LONG, LONG.upper(), LONG + "!", CHINESE, CHINESE + "！"]
    assert find_twins(texts, fixed=2).tolist() == [-1, -1, 0, -1, -1]


def test_every_pair_above_the_threshold_is_found() -> None:
    words = random.Random(3)
    base = [tiny.review(index % 2, words) for index in range(150)]
    texts = base + [f"{text} {words.choice(tiny.PLAIN)}" for text in base]
    found = find_twins(texts)
    for index, text in enumerate(texts):
        alike = [other for other in range(index) if found[other] < 0 and similarity(texts[other], text) >= 0.8]
        assert (found[index] >= 0) == bool(alike)
        assert found[index] < 0 or found[index] in alike


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=12), max_size=12))
def test_any_text_can_be_compared(texts: list[str]) -> None:
    twins = find_twins(texts)
    assert len(twins) == len(texts)
    assert all(twin < index for index, twin in enumerate(twins))


def test_progress_is_told() -> None:
    done: list[int] = []
    find_twins(["a", "b", "c"], advance=done.append)
    assert done == [3]
