"""Texts as this artifact expects them: made of its golden inputs' words, as long as its training data was.

For warming up and for measuring, where nothing but the artifact is at hand.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np


def quantile_function(quantiles: Mapping[str, int]) -> Callable[[float], int]:
    """Tokens by share of inputs, from a manifest's `length_quantiles` ("p50", "0.5", "max"); straight in between.

    Below the least quantile it falls to half of it. Without any it is 32 everywhere.
    """
    known = sorted((share, tokens) for name, tokens in quantiles.items() if (share := _share(name)) is not None)
    if not known:
        return lambda _: 32
    shares, tokens = zip(*known, strict=True)
    if shares[0] > 0:
        shares, tokens = (0.0, *shares), (max(1, tokens[0] // 2), *tokens)
    return lambda share: round(float(np.interp(share, shares, tokens)))


def _share(name: str) -> float | None:
    if name == "max":
        return 1.0
    try:
        share = float(name.removeprefix("p")) / (100 if name.startswith("p") else 1)
    except ValueError:
        return None
    return share if 0 <= share <= 1 else None


def sample_lengths(quantiles: Mapping[str, int], count: int, most: int, seed: int = 0) -> list[int]:
    """`count` lengths in tokens that are spread as the training data's were, in random order, at most `most` each."""
    tokens = quantile_function(quantiles)
    lengths = [min(most, tokens((place + 0.5) / count)) for place in range(count)]
    return [lengths[place] for place in np.random.default_rng(seed).permutation(count)]


def text_of(texts: Sequence[str], tokens: int, count: Callable[[str], int], start: int = 0) -> str:
    """At most `tokens` tokens by `count`, but one word at least, of the words of `texts` from `start` on, around."""
    words = " ".join(texts).split()
    start %= len(words)
    words = (words[start:] + words[:start]) * math.ceil((tokens + 1) / len(words))
    low, high = 1, max(1, tokens)
    while low < high:
        middle = (low + high + 1) // 2
        fits = count(" ".join(words[:middle])) <= tokens
        low, high = (middle, high) if fits else (low, middle - 1)
    return " ".join(words[:low])


def sample_texts(texts: Sequence[str], lengths: Sequence[int], count: Callable[[str], int], seed: int = 0) -> list[str]:
    """One text of each length, each beginning at another word."""
    starts = np.random.default_rng(seed).integers(0, 1 << 30, len(lengths)).tolist()
    return [text_of(texts, tokens, count, start) for tokens, start in zip(lengths, starts, strict=True)]
