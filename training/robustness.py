"""Changes that leave a text's meaning: typing errors, case, words of negation that negate nothing, emoji.

Behavioural tests after Ribeiro et al. 2020 (CheckList, invariance tests); the tautology that carries a negation is
from the stress tests of Naik et al. 2018. Every change is drawn from a generator seeded with the row, so the same
seed changes the same row in the same way whatever the other rows are.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from artifact.manifest import Estimate, PerturbationResult
from inference.tasks.text import normalize_text
from training.evaluate import paired_accuracy_difference
from training.intervals import proportion

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Score = Callable[[Sequence[str]], Floats]
Change = Callable[[str, random.Random], str]
Clean = Callable[[str], str]

_WORDS_PER_TYPO: Final = 8
_WORD: Final = re.compile(r"[^\W\d_]{4,}")
_TAUTOLOGY: Final = "and false is not true"
# Things, not faces: an emoji that smiles has a meaning of its own.
_EMOJI: Final = ("\N{PUSHPIN}", "\N{CALENDAR}", "\N{TELEVISION}", "\N{CLAPPER BOARD}", "\N{PAPERCLIP}", "\N{SEAT}")


def typos(text: str, rng: random.Random) -> str:
    """One slip of the fingers in every eighth word or so, and in at least one: letters swapped, lost or doubled."""
    words = list(_WORD.finditer(text))
    chosen = rng.sample(words, k=min(len(words), 1 + len(words) // _WORDS_PER_TYPO))
    for match in sorted(chosen, key=lambda each: -each.start()):
        text = text[: match.start()] + _slip(match.group(), rng) + text[match.end() :]
    return text


def _slip(word: str, rng: random.Random) -> str:
    place = rng.randrange(1, len(word) - 1)
    kind = rng.choice(("swap", "lose", "double"))
    if kind == "swap":
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    return word[:place] + (word[place + 1 :] if kind == "lose" else word[place] + word[place:])


def upper(text: str, _: random.Random) -> str:
    """All capitals."""
    return text.upper()


def lower(text: str, _: random.Random) -> str:
    """No capitals."""
    return text.lower()


def negation(text: str, _: random.Random) -> str:
    """A tautology at the end, whose `false` and `not` say nothing about the text (English)."""
    return f"{text} {_TAUTOLOGY}"


def emoji(text: str, rng: random.Random) -> str:
    """One or two emoji of things at the end."""
    return f"{text} {''.join(rng.sample(_EMOJI, k=rng.randint(1, 2)))}"


CHANGES: Final[Mapping[str, Change]] = {
    "typos": typos,
    "upper case": upper,
    "lower case": lower,
    "negation": negation,
    "emoji": emoji,
}


def measure_robustness(
    texts: Sequence[str],
    labels: Labels,
    scores: Floats,
    score: Score,
    *,
    at_most: int,
    seed: int = 0,
    clean: Clean = normalize_text,
) -> tuple[PerturbationResult, ...]:
    """Accuracy before and after each change, on a seeded sample of `at_most` rows, and how often the label flips.

    `scores`, shape (rows, labels), are those of the unchanged texts. Rows that a change leaves as they are, as lower
    case does to lower case or to a model that reads everything in lower case by `clean`, say nothing about it and are
    left out; a change that leaves all of them is left out whole.
    """
    order = np.random.default_rng(seed).permutation(len(texts))[:at_most]
    rows = [int(row) for row in np.sort(order)]
    results = (_measure(name, rows, texts, labels, scores, score, seed, clean) for name in CHANGES)
    return tuple(result for result in results if result is not None)


def _measure(
    name: str,
    rows: Sequence[int],
    texts: Sequence[str],
    labels: Labels,
    scores: Floats,
    score: Score,
    seed: int,
    clean: Clean,
) -> PerturbationResult | None:
    changed = {row: CHANGES[name](texts[row], random.Random(f"{seed} {name} {texts[row]}")) for row in rows}
    moved = [row for row, text in changed.items() if clean(text) not in ("", clean(texts[row]))]
    if not moved:
        return None
    before, after, truth = scores[moved], score([changed[row] for row in moved]), labels[moved]
    return PerturbationResult(
        name=name,
        rows=len(moved),
        accuracy_before=_accuracy(before, truth),
        accuracy_after=_accuracy(after, truth),
        difference=paired_accuracy_difference(after, before, truth, seed=seed),
        flip_rate=proportion(int((after.argmax(axis=1) != before.argmax(axis=1)).sum()), len(moved)),
    )


def _accuracy(scores: Floats, truth: Labels) -> Estimate:
    return proportion(int((scores.argmax(axis=1) == truth).sum()), len(truth))
