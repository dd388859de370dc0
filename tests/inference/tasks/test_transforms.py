"""The cleaning steps: what each does, that order counts, and that no script is harmed."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifact.manifest import TransformName
from inference.tasks.text import normalize_text
from inference.tasks.transforms import Cleaner

ALL: tuple[TransformName, ...] = get_args(TransformName)
NO_SPACES = (
    "这部电影很好看，我们都喜欢。",
    "とても良い映画でした。ありがとう！",
    "หนังเรื่องนี้ดีมากและน่าประทับใจ",
    "ភាពយន្តនេះល្អណាស់",
)


@pytest.mark.parametrize(
    ("step", "text", "cleaned"),
    [
        ("unicode", "Ｇｏｏｄ ﬁlm ｶﾞ", "Good film ガ"),
        ("unicode", "so\u00adft\u200b \x07bell\ufeff", "soft bell"),
        ("unicode", "می\u200cخواهم 👩\u200d🚀", "می\u200cخواهم 👩\u200d🚀"),
        ("html", "good<br/>film &amp; <b>great</b>ness", "good film & greatness"),
        ("html", "&amp;amp;lt;i&amp;gt;fine", "fine"),
        ("html", "a < b and 3<4, I <3 it, <电影>", "a < b and 3<4, I <3 it, <电影>"),
        ("whitespace", " a \n\t b\u3000c ", "a b c"),
        ("urls", "see https://example.com/a?b=c#d, or www.example.org.", "see [url], or [url]."),
        ("urls", "看http://example.com/x很好", "看[url]很好"),
        ("pii", "mail me@example.com", "mail [email]"),
        ("lowercase", "A GOOD Film", "a good film"),
        ("stop_words", "The film and The End", "film End"),
    ],
)
def test_what_a_step_does(step: TransformName, text: str, cleaned: str) -> None:
    assert Cleaner([step], stop_words=["the", "and"])(text) == cleaned


def test_without_steps_it_is_the_one_normalization() -> None:
    assert Cleaner()(" cafe\u0301 \n noir") == normalize_text(" cafe\u0301 \n noir")


@pytest.mark.parametrize("text", NO_SPACES)
def test_scripts_without_spaces_survive_every_step(text: str) -> None:
    cleaned = Cleaner(ALL, stop_words=["the", "of"])(text)
    letters = [character for character in text if character.isalpha()]
    assert [character for character in cleaned if character.isalpha()] == letters
    for step in ALL:
        if step != "unicode":  # full-width punctuation has a plain form
            assert Cleaner([step], stop_words=["the"])(text) == text


def test_a_step_that_uncovers_work_for_an_earlier_one_is_followed_up() -> None:
    assert Cleaner(["urls", "html"])("see &#104;ttp://example.com") == "see [url]"


@given(st.text(alphabet="ab<>&;lt#/ｂ@.1電\u200b ", max_size=80))
def test_cleaning_twice_changes_nothing(text: str) -> None:
    clean = Cleaner(ALL, stop_words=["a"])
    once = clean(text)
    assert clean(once) == once


def test_a_watcher_hears_of_each_step_that_changed_something() -> None:
    heard: list[tuple[str, str]] = []
    Cleaner(["html", "urls", "lowercase"])("A <b>film</b>", watch=lambda *what: heard.append(what))
    assert heard == [("html", "A <b>film</b>"), ("lowercase", "A film")]


@pytest.mark.parametrize(
    "text",
    [
        "<" + "a" * 200_000,
        "<!" * 100_000,
        "&amp;" * 40_000 + "lt;",
        "&#" + "9" * 5000 + ";",
        "http://" + "(" * 200_000,
        "www.!" * 40_000,
        "a" * 100_000 + "@" + "b." * 50_000,
        "+1 " * 60_000,
        "4111 " * 40_000,
        "de89 " * 40_000,
        "1:" * 100_000,
        "0800 " * 40_000,
    ],
    ids=lambda text: text[:8],
)
def test_no_text_takes_more_than_its_length_asks_for(text: str) -> None:
    assert isinstance(Cleaner(ALL, stop_words=["the"])(text), str)
