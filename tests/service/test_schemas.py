import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from inference.errors import BadInput, TooManyInputs
from service.errors import NotJson
from service.schemas import Call, PredictRequest, loads, parse_call


def parse(body: object) -> Call:
    return parse_call(json.dumps(body).encode(), max_inputs=3, max_timeout_seconds=60)


def test_one_text_is_a_list_of_one() -> None:
    assert parse({"inputs": "a"}).inputs == ["a"]


def test_everything_that_can_be_asked() -> None:
    call = parse(
        {
            "inputs": ["a", "b"],
            "model": "m",
            "version": "canary",
            "parameters": {"truncate": True},
            "timeout_seconds": 2,
            "priority": "batch",
        }
    )
    assert call == Call(["a", "b"], False, "m", "canary", True, 2, "batch")


def test_null_means_not_given() -> None:
    fields = ("model", "version", "parameters", "timeout_seconds", "priority", "input_data")
    assert parse({"inputs": "a", **dict.fromkeys(fields)}) == parse({"inputs": "a"})


def test_the_tutorials_body() -> None:
    call = parse({"input_data": ["a"]})
    assert (call.inputs, call.legacy) == (["a"], True)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "body"),
        ("text", "body"),
        (None, "body"),
        ({}, "inputs"),
        ({"inputs": None}, "inputs"),
        ({"inputs": 1}, "inputs"),
        ({"inputs": {"a": 1}}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"input_data": []}, "input_data"),
        ({"inputs": "a", "input_data": "a"}, "input_data"),
        ({"inputs": "a", "secret-key": 1}, "body"),
        ({"inputs": "a", "model": 1}, "model"),
        ({"inputs": "a", "version": 0}, "version"),
        ({"inputs": "a", "version": True}, "version"),
        ({"inputs": "a", "version": 1.5}, "version"),
        ({"inputs": "a", "parameters": []}, "parameters"),
        ({"inputs": "a", "parameters": {"secret-key": 1}}, "parameters"),
        ({"inputs": "a", "parameters": {"truncate": 1}}, "parameters.truncate"),
        ({"inputs": "a", "timeout_seconds": 0}, "timeout_seconds"),
        ({"inputs": "a", "timeout_seconds": 61}, "timeout_seconds"),
        ({"inputs": "a", "timeout_seconds": True}, "timeout_seconds"),
        ({"inputs": "a", "timeout_seconds": "1"}, "timeout_seconds"),
        ({"inputs": "a", "priority": "urgent"}, "priority"),
        ({"inputs": "a", "priority": ["batch"]}, "priority"),
    ],
)
def test_a_wrong_field_is_named(body: object, field: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse(body)
    assert caught.value.field == field
    assert "secret" not in caught.value.message
    assert "urgent" not in caught.value.message


def test_too_many_inputs() -> None:
    with pytest.raises(TooManyInputs, match="4 inputs"):
        parse({"inputs": ["a"] * 4})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{'inputs': 'a'}",
        b'{"inputs": NaN}',
        b'{"inputs": "a", "timeout_seconds": Infinity}',
        b'{"inputs": "a", "timeout_seconds": 1e400}',
        b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"inputs": "\\ud800", "model": NaN}',
        b'{"inputs": "\\ud800' + b"[" * 100_000,
        b'{"inputs": ["\\ud83d\\ude00", ' + b"[" * 100_000 + b"]" * 100_000 + b"]}",
        b'{"inputs": "\xff"}',
        b'{"inputs": "a\x00"}',
        '{"inputs": "a"}'.encode("utf-16"),
        b'\xef\xbb\xbf{"inputs": "a"}',
        b'{"inputs": "a"} trailing',
    ],
)
def test_what_is_not_json(body: bytes) -> None:
    with pytest.raises(NotJson):
        loads(body)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"inputs": "\\ud800"}', "inputs[0]"),
        (b'{"inputs": ["a", "b\\uDFFF"]}', "inputs[1]"),
        (b'{"inputs": "a", "model": "\\ud800"}', "body"),
        (b'{"inputs": "a", "\\ud800": 1}', "body"),
    ],
)
def test_lone_surrogates_are_the_fields_fault(body: bytes, field: str) -> None:
    with pytest.raises(BadInput, match="surrogate") as caught:
        loads(body)
    assert caught.value.field == field


def test_a_surrogate_pair_and_nul_are_text() -> None:
    assert loads(b'{"inputs": "\\ud83d\\ude00\\u0000"}') == {"inputs": "\U0001f600\0"}


_VALUES = st.sampled_from(
    [
        None,
        "a",
        "",
        1,
        0,
        -1,
        2.5,
        True,
        [],
        ["a"],
        ["a", "b"],
        {},
        {"truncate": True},
        {"truncate": 1},
        "batch",
        {"x": 1},
    ]
)
_BODIES = st.dictionaries(
    st.sampled_from(
        ["inputs", "inputs", "input_data", "model", "version", "parameters", "timeout_seconds", "priority", "other"]
    ),
    _VALUES,
)


@given(_BODIES)
def test_the_parser_and_the_documented_schema_agree(body: dict[str, object]) -> None:
    """What the document forbids the parser refuses, and what it allows the parser takes."""
    try:
        PredictRequest.model_validate(body)
    except ValidationError:
        with pytest.raises((BadInput, TooManyInputs)):
            parse(body)
        return
    one_of_two = (body.get("inputs") is None) != (body.get("input_data") is None)
    if one_of_two and body.get("inputs") != [] and body.get("input_data") != []:
        parse(body)
    else:
        with pytest.raises(BadInput):
            parse(body)
