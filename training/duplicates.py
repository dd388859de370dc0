"""Texts that are nearly the same, found among millions: MinHash signatures, banded, confirmed by exact similarity.

MinHash (Broder 1997) and locality-sensitive hashing (Leskovec, Rajaraman & Ullman, Mining of Massive Datasets, chapter
3) propose pairs: two texts of Jaccard similarity s share one of 16 bands of 5 with probability 1 - (1 - s^5)^16, which
is .998 at the threshold of .8. One byte of each of the 80 minima is kept (Li & Koenig 2010, b-bit minwise hashing) to
rule most proposals out; what is left is compared exactly. About 150 bytes a text besides the texts themselves.
"""

import re
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

SHINGLE_CHARACTERS: Final = 5
DENSE_SHINGLE_CHARACTERS: Final = 2
NEAR_DUPLICATE_SIMILARITY: Final = 0.8

_BANDS: Final = 16
_BAND: Final = 5
_BATCH: Final = 2000
# Five standard deviations of an estimate from 80 hashes below the threshold.
_WORTH_COMPARING: Final = NEAR_DUPLICATE_SIMILARITY - 0.2
# Texts of one template may be alike by the thousand without being duplicates: only the likeliest are compared.
_MOST_COMPARED: Final = 100
_LARGEST_BUCKET: Final = 1000
# Vowel signs and tone marks are no letters to Python and are to those who read Hebrew, Arabic, Indic scripts or Thai.
MARKS: Final = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u109f\u1780-\u17ff"
_BETWEEN_WORDS: Final = re.compile(rf"[^\w{MARKS}]+|_+")
# Chinese characters, kana and Hangul: two of them say as much as five letters.
_DENSE: Final = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")

Codes = NDArray[np.uint32]
Advance = Callable[[int], None]


def shingles(text: str) -> frozenset[str]:
    """Runs of five characters of the lower-cased words: blind to case, punctuation and spacing.

    Runs of two where most characters are Chinese, Japanese or Korean.
    """
    flat = _flat(text)
    width = _width(flat)
    return frozenset(flat[start : start + width] for start in range(max(1, len(flat) - width + 1)))


def similarity(one: str, other: str) -> float:
    """Jaccard similarity of the shingles: 0 for nothing in common, 1 for the same."""
    mine, theirs = shingles(one), shingles(other)
    return len(mine & theirs) / len(mine | theirs)


def find_twins(texts: Sequence[str], *, fixed: int = 0, advance: Advance = lambda _: None) -> NDArray[np.int64]:
    """For each text the index of an earlier one that survives and is nearly the same, or -1; shape (texts,), int64.

    A text with a twin does not survive, so chains of small changes end at the first link. With `fixed`, the first
    `fixed` texts all survive and the others are compared with these alone. `advance` hears how many texts are done.
    """
    keys, marks = _signatures(texts, advance)
    shared = _shared(keys)
    buckets: list[dict[int, list[int]]] = [{} for _ in range(_BANDS)]
    twins = np.full(len(texts), -1, dtype=np.int64)
    for index in np.flatnonzero(shared.any(axis=1)).tolist():
        bands = [(buckets[band], int(keys[index, band])) for band in np.flatnonzero(shared[index])]
        if index >= fixed:
            twins[index] = _twin(index, texts, marks, {other for bucket, key in bands for other in bucket.get(key, ())})
        if index < fixed or (not fixed and twins[index] < 0):
            for bucket, key in bands:
                members = bucket.setdefault(key, [])
                if len(members) < _LARGEST_BUCKET:
                    members.append(index)
    return twins


def _twin(index: int, texts: Sequence[str], marks: NDArray[np.uint8], proposed: set[int]) -> int:
    """The likeliest of the proposed that is similar enough, or -1."""
    if not proposed:
        return -1
    others = np.array(sorted(proposed))
    estimates = (marks[others] == marks[index]).mean(axis=1)
    for place in np.argsort(-estimates, kind="stable")[:_MOST_COMPARED]:
        if estimates[place] < _WORTH_COMPARING:
            break
        other = int(others[place])
        if similarity(texts[index], texts[other]) >= NEAR_DUPLICATE_SIMILARITY:
            return other
    return -1


def _shared(keys: Codes) -> NDArray[np.bool_]:
    """Which band keys more than one text has, shape (texts, bands): nobody else can have a twin."""
    shared = np.zeros(keys.shape, dtype=np.bool_)
    for band in range(keys.shape[1]):
        order = np.argsort(keys[:, band])
        same = np.diff(keys[order, band]) == 0
        shared[order[1:][same], band] = True
        shared[order[:-1][same], band] = True
    return shared


def _signatures(texts: Sequence[str], advance: Advance) -> tuple[Codes, NDArray[np.uint8]]:
    """Band keys, shape (texts, bands), and the low byte of each minimum, shape (texts, bands x band)."""
    keys = np.empty((len(texts), _BANDS), dtype=np.uint32)
    marks = np.empty((len(texts), _BANDS * _BAND), dtype=np.uint8)
    factors, offsets = np.random.default_rng(7).integers(0, 2**32, (2, _BANDS * _BAND), dtype=np.uint32)
    for start in range(0, len(texts), _BATCH):
        batch = slice(start, min(start + _BATCH, len(texts)))
        hashes, starts = _hashed([_flat(text) for text in texts[batch]])
        for place, (factor, offset) in enumerate(zip(factors | 1, offsets, strict=True)):
            least = np.minimum.reduceat(hashes * factor + offset, starts)
            marks[batch, place] = least & 0xFF
            band, first = place // _BAND, place % _BAND == 0
            keys[batch, band] = _mixed(least if first else keys[batch, band] ^ least)
        advance(batch.stop)
    return keys, marks


def _hashed(flats: Sequence[str]) -> tuple[Codes, NDArray[np.int64]]:
    """A 32-bit hash of every shingle of every text in a row, and where each text's begin."""
    lengths = np.array([len(flat) for flat in flats], dtype=np.int64)
    widths = np.array([_width(flat) for flat in flats], dtype=np.int64)
    # The NUL at the end stands for "outside" where nothing else is there.
    codes = np.frombuffer(f"{''.join(flats)}\0".encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    counts = np.maximum(1, lengths - widths + 1)
    starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
    ends = np.repeat(np.cumsum(lengths), counts)
    places = np.arange(counts.sum()) + np.repeat(np.cumsum(lengths) - lengths - starts, counts)
    reach = np.minimum(ends, places + np.repeat(widths, counts))
    hashes = np.zeros(len(places), dtype=np.uint32)
    for step in range(SHINGLE_CHARACTERS):
        at = places + step
        inside = at < reach
        # One more than the code, so that a short text is not taken for a longer one that ends in NUL.
        hashes = _mixed(hashes ^ np.where(inside, codes[np.where(inside, at, 0)] + 1, 0))
    return hashes, starts


def _mixed(values: Codes) -> Codes:
    """Spread 32 bits over 32 bits (the finalizer of MurmurHash3, public domain)."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        values = (values ^ (values >> np.uint32(shift))) * np.uint32(factor)
    return values ^ (values >> np.uint32(16))


def _flat(text: str) -> str:
    return _BETWEEN_WORDS.sub(" ", text.casefold()).strip() or text


def _width(flat: str) -> int:
    if flat.isascii():
        return SHINGLE_CHARACTERS
    dense = 2 * len(_DENSE.findall(flat)) > len(flat)
    return DENSE_SHINGLE_CHARACTERS if dense else SHINGLE_CHARACTERS
