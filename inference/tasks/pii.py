"""Personal data that can be told by its form, and masked: the same when training and when serving.

A form with a check digit is only believed when the check holds: cards by Luhn's algorithm (ISO/IEC 7812-1, annex B),
account numbers by the length their country gives them and mod 97 (ISO 13616, ISO 7064). Names and addresses have no
form; nobody should think a text without a mask holds nothing personal.

Every pattern is ASCII, so that a number in the middle of a text without spaces is found too, and bounded, so that no
text takes more than time in proportion to its length.
"""

import re
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final

KINDS: Final = ("email", "iban", "card", "ssn", "ip", "phone")

_FLAGS: Final = re.ASCII | re.IGNORECASE
_PATTERNS: Final = {
    "email": re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[a-z0-9-]{1,63}\.){1,8}[a-z]{2,24}(?![\w-])", _FLAGS),
    "iban": re.compile(r"(?<!\w)[a-z]{2}[0-9]{2}(?:[ -]?[a-z0-9]){11,30}", _FLAGS),
    "card": re.compile(r"(?<![\w.-])[2-6](?:[ -]?[0-9]){12,15}(?!\w|[ -]?[0-9]|-)", _FLAGS),
    "ssn": re.compile(r"(?<![\w-])(?!000|666|9)[0-9]{3}-(?!00)[0-9]{2}-(?!0000)[0-9]{4}(?![\w-])", _FLAGS),
    "ip": re.compile(
        r"(?<![\w.:])(?:(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?!\w|\.[0-9])|(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}(?![\w:]))",
        _FLAGS,
    ),
    # International, then the ways numbers are written in North America, Europe and, for mobiles, China.
    "phone": re.compile(
        r"(?<![\w+])\+[0-9](?:[ .()/-]{0,2}[0-9]){7,14}(?!\w)"
        r"|(?<![\w.-])(?<![0-9] )(?:\([0-9]{3,5}\) ?[0-9]{3,4}[ -]?[0-9]{3,5}|[0-9]{3}[.-][0-9]{3}[.-][0-9]{4}"
        r"|0[0-9]{1,4}[ /-][0-9]{3,4}[ -]?[0-9]{3,5}|1[3-9][0-9]{9})(?![\w-]| [0-9])",
        _FLAGS,
    ),
}
# How long an account number is, by country (ISO 13616 registry).
_IBAN_LENGTHS: Final = {
    word[:2]: int(word[2:])
    for word in [
        "AD24",
        "AE23",
        "AL28",
        "AT20",
        "AZ28",
        "BA20",
        "BE16",
        "BG22",
        "BH22",
        "BR29",
        "BY28",
        "CH21",
        "CR22",
        "CY28",
        "CZ24",
        "DE22",
        "DK18",
        "DO28",
        "EE20",
        "EG29",
        "ES24",
        "FI18",
        "FO18",
        "FR27",
        "GB22",
        "GE22",
        "GI23",
        "GL18",
        "GR27",
        "GT28",
        "HR21",
        "HU28",
        "IE22",
        "IL23",
        "IQ23",
        "IS26",
        "IT27",
        "JO30",
        "KW30",
        "KZ20",
        "LB28",
        "LC32",
        "LI21",
        "LT20",
        "LU20",
        "LV21",
        "LY25",
        "MC27",
        "MD24",
        "ME22",
        "MK19",
        "MR27",
        "MT31",
        "MU30",
        "NL18",
        "NO15",
        "PK24",
        "PL28",
        "PS29",
        "PT25",
        "QA29",
        "RO24",
        "RS22",
        "SA24",
        "SC31",
        "SD18",
        "SE24",
        "SI19",
        "SK24",
        "SM27",
        "ST25",
        "SV28",
        "TL23",
        "TN24",
        "TR26",
        "UA29",
        "VA22",
        "VG24",
        "XK20",
    ]
}
_DIGIT: Final = re.compile("[0-9]")


def mask_pii(text: str) -> str:
    """`text` with each find replaced by its kind: `[email]`, `[phone]`, ... Doing it again changes nothing."""
    return _masked(text, None)


def count_pii(text: str) -> Counter[str]:
    """Finds in `text` by kind, counted as `mask_pii` would mask them."""
    counts: Counter[str] = Counter()
    _masked(text, counts)
    return counts


def _masked(text: str, counts: Counter[str] | None) -> str:
    numbers = _DIGIT.search(text) is not None
    for kind in KINDS:
        if "@" in text if kind == "email" else numbers:
            text = _PATTERNS[kind].sub(_masking(kind, counts), text)
    return text


def _masking(kind: str, counts: Counter[str] | None) -> Callable[[re.Match[str]], str]:
    length_of = _LENGTHS.get(kind, len)

    def replace(match: re.Match[str]) -> str:
        found = match.group()
        length = length_of(found)
        if not length:
            return found
        if counts is not None:
            counts[kind] += 1
        return f"[{kind}]{found[length:]}"

    return replace


def luhn_holds(digits: str) -> bool:
    """Whether the last digit is the check digit of those before it."""
    values = [int(digit) for digit in reversed(digits)]
    doubled = (sum(divmod(2 * value, 10)) for value in values[1::2])
    return (sum(values[::2]) + sum(doubled)) % 10 == 0


def iban_holds(compact: str) -> bool:
    """Whether an account number without spaces has its country's length and leaves 1 when divided by 97."""
    if _IBAN_LENGTHS.get(compact[:2].upper()) != len(compact):
        return False
    return int("".join(str(int(character, 36)) for character in compact[4:] + compact[:4])) % 97 == 1


def _card_length(found: str) -> int:
    return len(found) if luhn_holds(re.sub("[ -]", "", found)) else 0


def _iban_length(found: str) -> int:
    """Characters of `found` that are the account number; the pattern may have run on into the next words."""
    wanted = _IBAN_LENGTHS.get(found[:2].upper(), 0)
    places = [place for place, character in enumerate(found) if character.isalnum()]
    if not wanted or len(places) < wanted:
        return 0
    end = places[wanted - 1] + 1
    return end if not found[end : end + 1].isalnum() and iban_holds(re.sub("[ -]", "", found[:end])) else 0


def _ip_length(found: str) -> int:
    if ":" in found and len([group for group in found.split(":") if group]) < 3:
        return 0  # "::1" is an address and also half of C++
    try:
        ip_address(found)
    except ValueError:
        return 0
    return len(found)


_LENGTHS: Final = {"card": _card_length, "iban": _iban_length, "ip": _ip_length}
