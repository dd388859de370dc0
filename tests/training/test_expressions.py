"""training/expressions.py: what a condition may say, and that it can do nothing else."""

import pytest

from training.errors import EvaluationInvalid
from training.expressions import parse_condition

ROW = {"tokens": 12, "genre": "Drama", "year": "1999", "note": "", "stars": 4.5, "source url": "web", "seen": None}


def holds(source: str) -> bool:
    return parse_condition(source, ROW)(ROW)


@pytest.mark.parametrize(
    "source",
    [
        "tokens > 10",
        "10 < tokens <= 12",
        "tokens == 12 and not genre == 'Comedy'",
        "genre in ('Drama', 'Horror') or tokens > 99",
        "'ram' in genre",
        "'horror' not in lower(genre)",
        "lower(genre) == 'drama'",
        "year >= 1999 and year < 2000",
        "year == 1999",
        "year in [1998, 1999]",
        "stars != 4",
        "stars > -1.5",
        "note == ''",
        "column('source url') == 'web'",
        "(tokens > 1)",
    ],
)
def test_what_holds(source: str) -> None:
    assert holds(source)


@pytest.mark.parametrize(
    "source",
    ["tokens > 12", "genre > 3", "genre < 3", "seen > 0", "seen < 0", "note >= 0", "genre == 1", "not tokens > 1"],
)
def test_what_does_not_hold(source: str) -> None:
    """Words are not numbers: no order holds for them."""
    assert not holds(source)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "not a condition"),
        ("tokens >", "not a condition"),
        ("tokens", "needs a comparison"),
        ("1", "needs a comparison"),
        ("tokens > 1 if 1 else 0", "needs a comparison"),
        ("tokns > 1", "no column 'tokns'; there are genre"),
        ("column('x') == 1", "no column 'x'"),
        ("column(genre) == 1", "quotation marks"),
        ("tokens + 1 > 3", "only columns, texts, numbers"),
        ("tokens ** 99999 > 3", "only columns, texts, numbers"),
        ("genre.upper() == 'X'", "only functions are"),
        ("__import__('os').system('true') == 0", "only functions are"),
        ("open('x') == 1", "only functions are"),
        ("lower(genre, 1) == 'x'", "only functions are"),
        ("genre[0] == 'D'", "only columns, texts, numbers"),
        ("(lambda: 1) == 1", "only columns, texts, numbers"),
        ("[x for x in genre] == 1", "only columns, texts, numbers"),
        ("f'{tokens}' == '12'", "only columns, texts, numbers"),
        ("genre is tokens", "compare with =="),
        ("-genre < 1", "before a number only"),
        ("tokens > 1; tokens", "not a condition"),
        ("(" * 300 + ")" * 300, "not a condition"),
        ("not " * 240 + "tokens > 1 " + "x" * 100, "longer than"),
        ("b'x' == genre", "only columns"),
        ("\0", "not a condition"),
    ],
)
def test_what_is_refused_and_why(source: str, said: str) -> None:
    with pytest.raises(EvaluationInvalid, match=said.replace("(", r"\(")) as caught:
        holds(source)
    assert caught.value.exit_status == 2
