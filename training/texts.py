"""What a text looks like from outside: its words, its script, its language, and signs that something broke it."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Final

from inference.tasks.transforms import mask_urls, strip_html
from training.duplicates import MARKS

# What UTF-8 looks like when it was read as Latin-1 or Windows-1252.
_MOJIBAKE: Final = re.compile("[ÃÂ][\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹Œ‘’“”•–—˜™š›œžŸ]|â€[\u0080-\u00bf™œ“”˜¦]")
_CONTROL: Final = re.compile("[\x00-\x08\x0e-\x1b\x7f]")
_CUT: Final = re.compile(r"(?:\.\.\.|…)$")
# Scripts that do not put spaces between words: Thai to Myanmar, Khmer, kana, Chinese characters.
_NO_SPACES: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD: Final = re.compile(
    rf"[{_NO_SPACES}]+|(?:(?![{_NO_SPACES}])[^\W_])(?:(?![{_NO_SPACES}])(?:['’]?[^\W_]|[{MARKS}]))*"
)
_UNSPACED: Final = re.compile(rf"[{_NO_SPACES}]")
_SCRIPT_NAMES: Final = {"CJK": "Han", "IDEOGRAPHIC": "Han"}


def words(text: str) -> list[str]:
    """Lower-cased words; of a run in a script without spaces, every two neighbouring characters."""
    return [word for run in _WORD.findall(text.lower()) for word in _parts(run)]


def count_words(text: str) -> int:
    """Words as white space divides them; where a script has no spaces, pairs of neighbouring characters."""
    return sum(len(words(part)) if _UNSPACED.search(part) else 1 for part in text.split())


def _parts(run: str) -> Iterable[str]:
    if len(run) <= 2 or not _UNSPACED.match(run):
        return (run,)
    return (run[start : start + 2] for start in range(len(run) - 1))


def flaws(text: str) -> Iterator[str]:
    """Names of what is wrong with `text`, out of FLAWS."""
    if not text or text.isspace():
        yield "empty"
        return
    if not text.isascii():
        if "\ufffd" in text or any("\ud800" <= character <= "\udfff" for character in text):
            yield "replacement"
        if _MOJIBAKE.search(text):
            yield "mojibake"
    if not text.isprintable() and _CONTROL.search(text):
        yield "control"
    if ("<" in text or "&" in text) and strip_html(text) != text:
        yield "html"
    if ("://" in text or "www." in text) and mask_urls(text) != text:
        yield "url"
    if _CUT.search(text):
        yield "ellipsis"


# What rows with a flaw do.
FLAWS: Final = {
    "empty": "are empty",
    "replacement": "hold U+FFFD or half a character: decoded wrongly once",
    "mojibake": "hold mojibake: UTF-8 read as Latin-1",
    "control": "hold control characters",
    "html": "hold HTML tags or entities",
    "url": "hold web addresses",
    "ellipsis": "end in an ellipsis: perhaps cut",
    "same_length": "have all exactly the greatest length: cut",
}


def script_of(text: str) -> str:
    """The script most letters are in, by the Unicode names of the characters; `none` for a text without letters."""
    if text.isascii():
        return "Latin" if any(map(str.isalpha, text)) else "none"
    scripts = Counter(_script(character) for character in text)
    del scripts[""]
    return scripts.most_common(1)[0][0] if scripts else "none"


@cache
def _script(character: str) -> str:
    if not character.isalpha():
        return ""
    first = unicodedata.name(character, "UNNAMED").split(maxsplit=1)[0].split("-")[0]
    return _SCRIPT_NAMES.get(first, first.capitalize())


def languages_of(texts: Sequence[str]) -> list[str]:
    """ISO 639-1 codes by py3langid (Lui & Baldwin 2012): a guess, and a weak one below some five words."""
    return [str(_identifier().classify(text)[0]) for text in texts]


@cache
def _identifier() -> Any:
    """The model inside the package; opening it takes half a second."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)
