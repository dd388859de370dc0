"""training/texts.py: words, scripts, languages and flaws, in scripts with and without spaces."""

import pytest

from training.texts import FLAWS, count_words, flaws, languages_of, script_of, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The film's great, don't you think?", ["the", "film's", "great", "don't", "you", "think"]),
        ("这部电影很好看。", ["这部", "部电", "电影", "影很", "很好", "好看"]),
        ("good电影!", ["good", "电影"]),
        ("好", ["好"]),
        ("की फिल्म", ["की", "फिल्म"]),
        ("🙂 ... _", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_words_are_counted_by_white_space_or_in_pairs() -> None:
    assert count_words("a well-made  film, isn't it?") == 5
    assert count_words("这部电影很好看 indeed") == len(words("这部电影很好看")) + 1 == 7
    assert count_words(" ") == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["empty"]),
        (" \n", ["empty"]),
        ("caf\ufffd", ["replacement"]),
        ("half \ud800", ["replacement"]),
        ("cafÃ© and itâ€™s", ["mojibake"]),
        ("a\x00b", ["control"]),
        ("a <b>b</b>", ["html"]),
        ("fish &amp; chips", ["html"]),
        ("see www.example.org", ["url"]),
        ("and then…", ["ellipsis"]),
        ("<i>x</i> http://example.org ...", ["html", "url", "ellipsis"]),
        ("R&D: 3 < 4, São Paulo, 这部电影很好看", []),
    ],
)
def test_flaws(text: str, expected: list[str]) -> None:
    assert list(flaws(text)) == expected
    assert set(expected) <= FLAWS.keys()


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("plain", "Latin"),
        ("élan", "Latin"),
        ("это", "Cyrillic"),
        ("很好 film", "Latin"),
        ("这部电影很好看 film", "Han"),
        ("ありがとう", "Hiragana"),
        ("หนัง", "Thai"),
        ("1 + 1 🙂", "none"),
        ("123", "none"),
    ],
)
def test_scripts(text: str, script: str) -> None:
    assert script_of(text) == script


def test_languages_are_guessed_without_the_network() -> None:
    texts = ["the film was good but the ending was not", "der Film war gut, aber das Ende nicht", "这部电影很好看"]
    assert languages_of(texts) == ["en", "de", "zh"]
