"""The cleaning steps a recipe may name, applied alike when training and when serving.

They stand here, and the artifact's manifest records which of them a model was trained with, so that a served text is
cleaned as the training texts were. None needs spaces between words; none touches a letter of a script that it is not
about.
"""

import html
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Final

from artifact.manifest import TextPreprocessing, TransformName
from inference.tasks.pii import mask_pii
from inference.tasks.text import normalize_text

# A step may uncover work for one before it, as unescaping uncovers a link. Nearly every text is done after one round.
_MOST_ROUNDS: Final = 4
# Full-width and half-width forms and Latin ligatures. Whole NFKC would also take Thai and Arabic letters apart.
_FORMS: Final = re.compile("[\uff00-\uffef\ufb00-\ufb06]+")
# Controls but for white space; soft hyphen, zero-width space, marks of direction, byte-order mark. The two joiners
# stay: Persian, Indic scripts and emoji need them.
_INVISIBLE: Final = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]+"
)
# Possessive: a name without an end must not be tried at every length.
_TAG: Final = re.compile(r"</?([a-zA-Z][a-zA-Z0-9]*+)[^<>]*+>|<![^<>]*+>")
_INLINE_TAGS: Final = frozenset(
    [
        "a",
        "abbr",
        "b",
        "big",
        "code",
        "em",
        "font",
        "i",
        "mark",
        "s",
        "small",
        "span",
        "strong",
        "sub",
        "sup",
        "tt",
        "u",
    ]
)
_STACKED: Final = re.compile(r"&(?:amp;)+", re.IGNORECASE)
# ASCII only: in a text without spaces the next word begins where the address ends.
_URL: Final = re.compile(
    r"(?<![a-z0-9])(?:https?://|www\.)[a-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*[a-z0-9/_=&#~%+-]", re.IGNORECASE
)

Step = Callable[[str], str]
Watcher = Callable[[str, str], None]


class Cleaner:
    """A chain of named steps with `normalize_text` before and after: text in, text out, the second time unchanged."""

    def __init__(self, names: Sequence[TransformName] = (), stop_words: Sequence[str] = ()) -> None:
        steps: dict[str, Step] = {
            "unicode": fold_forms,
            "html": strip_html,
            "whitespace": normalize_text,
            "urls": mask_urls,
            "pii": mask_pii,
            "lowercase": str.lower,
            "stop_words": _without(stop_words),
        }
        self._steps = [(name, steps[name]) for name in names]

    @classmethod
    def of(cls, preprocessing: TextPreprocessing) -> "Cleaner":
        """The chain a manifest records."""
        return cls(preprocessing.transforms, preprocessing.stop_words)

    def __call__(self, text: str, watch: Watcher | None = None) -> str:
        """Clean `text`. `watch` is told the name of each step that changes it, and the text before that step."""
        text = normalize_text(text)
        for _ in range(_MOST_ROUNDS if self._steps else 0):
            before = text
            for name, step in self._steps:
                changed = step(text)
                if watch is not None and changed != text:
                    watch(name, text)
                text = changed
            text = normalize_text(text)
            if text == before:
                break
        return text


def fold_forms(text: str) -> str:
    """Full-width letters, half-width kana and ligatures in their plain form; invisible characters removed."""
    if text.isascii() and text.isprintable():
        return text
    return _INVISIBLE.sub("", _FORMS.sub(lambda found: unicodedata.normalize("NFKC", found.group()), text))


def strip_html(text: str) -> str:
    """Entities as their characters, tags removed; what stood in separate blocks stays apart. `a < b` is no tag."""
    if "&" in text:
        text = _unescaped(_STACKED.sub("&", text))
    return _TAG.sub(_gap, text) if "<" in text else text


def _unescaped(text: str) -> str:
    try:
        return html.unescape(text)
    except ValueError:  # a number of thousands of digits, which Python declines to read
        return text


def _gap(tag: re.Match[str]) -> str:
    return "" if (tag.group(1) or "").lower() in _INLINE_TAGS else " "


def mask_urls(text: str) -> str:
    """Web addresses as `[url]`."""
    return _URL.sub("[url]", text)


def _without(stop_words: Sequence[str]) -> Step:
    """Drops words, whatever their case; a word is what stands between spaces, so scripts without them lose nothing."""
    dropped = frozenset(word.lower() for word in stop_words)
    return lambda text: " ".join(word for word in text.split() if word.lower() not in dropped)
