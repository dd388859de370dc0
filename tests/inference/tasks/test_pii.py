"""Personal data by its form: found where it is, left alone where a check digit says it is something else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.tasks.pii import KINDS, count_pii, iban_holds, luhn_holds, mask_pii


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to ann.lee+x@mail.example.co.uk.", "write to [email]."),
        ("邮箱ann@example.com谢谢", "邮箱[email]谢谢"),
        ("card 4111 1111 1111 1111, thanks", "card [card], thanks"),
        ("card 4111-1111-1111-1111", "card [card]"),
        ("pay DE89 3704 0044 0532 0130 00 NOW PLEASE", "pay [iban] NOW PLEASE"),
        ("pay gb82west12345698765432", "pay [iban]"),
        ("my number is 219-09-9999.", "my number is [ssn]."),
        ("from 192.168.0.17, and", "from [ip], and"),
        ("from 2001:db8::8a2e:370:7334", "from [ip]"),
        ("call +44 20 7946 0958 now", "call [phone] now"),
        ("call (0171) 555 0199", "call [phone]"),
        ("call 555-867-5309", "call [phone]"),
        ("电话13800138000谢谢", "电话[phone]谢谢"),
    ],
)
def test_what_has_a_form_is_masked(text: str, masked: str) -> None:
    assert mask_pii(text) == masked
    assert sum(count_pii(text).values()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "card 4111 1111 1111 1112",
        "order 1234567890123456",
        "DE89 3704 0044 0532 0130 01",
        "version 1.2.3.400 or 1.2.3.4.5",
        "released 2021-03-04, 12:30:45",
        "scored 3-2 in 1999-2004, 10 out of 10",
        "std::string, a ::b",
        "me@home, @someone",
        "000-12-3456",
        "这部电影很好看 とても良い映画 หนังดีมาก",
    ],
)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert mask_pii(text) == text
    assert not count_pii(text)


def test_counts_are_by_kind() -> None:
    text = "a@example.com b@example.com 10.0.0.1"
    assert count_pii(text) == {"email": 2, "ip": 1}
    assert set(count_pii(text)) <= set(KINDS)


@given(st.text(alphabet="a1@.:+-()[] 4电", max_size=60))
def test_masking_twice_changes_nothing(text: str) -> None:
    once = mask_pii(text)
    assert mask_pii(once) == once


@given(st.text(alphabet="0123456789", min_size=12, max_size=18), st.integers(0, 11))
def test_a_wrong_digit_never_passes_luhn(body: str, place: int) -> None:
    whole = next(f"{body}{last}" for last in range(10) if luhn_holds(f"{body}{last}"))
    wrong = whole[:place] + str((int(whole[place]) + 1) % 10) + whole[place + 1 :]
    assert not luhn_holds(wrong)


def test_an_account_number_has_its_countrys_length() -> None:
    assert iban_holds("DE89370400440532013000")
    assert not iban_holds("DE8937040044053201300")
    assert not iban_holds("ZZ89370400440532013000")
