"""Texts made from an artifact's own words and lengths."""

import pytest

from inference.samples import quantile_function, sample_lengths, sample_texts, text_of


def words(text: str) -> int:
    return len(text.split())


@pytest.mark.parametrize("names", [("p50", "p90", "max"), ("0.5", "0.9", "1")])
def test_lengths_follow_the_recorded_quantiles(names: tuple[str, str, str]) -> None:
    tokens = quantile_function(dict(zip(names, (20, 40, 100), strict=True)))
    assert (tokens(0.0), tokens(0.5), tokens(0.7), tokens(0.9), tokens(1.0)) == (10, 20, 30, 40, 100)


def test_names_that_are_no_share_are_passed_over() -> None:
    assert quantile_function({"mean": 3, "p50": 8, "p250": 1})(0.5) == 8
    assert quantile_function({})(0.5) == 32


def test_sampled_lengths_are_mixed_and_bounded() -> None:
    lengths = sample_lengths({"p50": 20, "max": 100}, 64, most=60)
    assert max(lengths) == 60
    assert lengths != sorted(lengths)
    assert sorted(lengths)[32] == pytest.approx(20, abs=3)


@pytest.mark.parametrize("tokens", [1, 2, 5, 30])
def test_a_text_has_the_length_asked_for_even_from_few_words(tokens: int) -> None:
    assert words(text_of(["one two", "three"], tokens, words)) == tokens


def test_a_text_never_is_empty() -> None:
    assert text_of(["unspeakably"], 1, lambda text: 7 * words(text)) == "unspeakably"


def test_texts_of_one_length_differ() -> None:
    texts = sample_texts([f"word{number}" for number in range(100)], [5] * 20, words)
    assert len(set(texts)) > 10
