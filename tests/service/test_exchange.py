"""The direct way and FastAPI's are one service: the same body gets the same answer on both."""

import http.client
import json
from typing import Any

import pytest

from inference.errors import BadInput, Overloaded
from service.errors import UnsupportedMediaType
from service.exchange import check_content_type, in_the_tutorials_words
from tests.service.fakes import PATIENCE_SECONDS, Running


def _ask(service: Running, body: bytes, *, whole: bool) -> tuple[int, dict[str, str], Any]:
    """With `whole` the length is declared, and the connection answers; in chunks, and FastAPI does."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE_SECONDS)
    try:
        sent: Any = body if whole else iter([body[:5], body[5:]])
        headers = {"content-type": "application/json", "x-request-id": "one"}
        connection.request("POST", "/predict", sent, headers, encode_chunked=not whole)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), json.loads(response.read())
    finally:
        connection.close()


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": "good"},
        {"inputs": ["good", "a very bad film"], "priority": "batch", "timeout_seconds": 5},
        {"input_data": ["good"]},
        {"input_data": ["good", ""]},
        {"inputs": ""},
        {"inputs": 3},
        {"inputs": "good", "model": "nobody"},
        {"inputs": "good", "version": 99},
        {"inputs": "good " * 900},
        {"more": 1},
        [1],
    ],
)
def test_both_ways_answer_alike(service: Running, body: object) -> None:
    answers = [_ask(service, json.dumps(body).encode(), whole=whole) for whole in (True, False)]
    for _, headers, found in answers:
        headers.pop("date")
        found.pop("timings", None)
        headers.pop("content-length")
    assert answers[0] == answers[1]


@pytest.mark.parametrize("value", [None, "application/json", "application/JSON; charset=utf-8", "application/x+json"])
def test_json_and_silence_are_json(value: str | None) -> None:
    check_content_type(value)


@pytest.mark.parametrize("value", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_what_a_form_can_send_is_not(value: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        check_content_type(value)


def test_the_tutorials_caller_hears_of_input_data() -> None:
    error = in_the_tutorials_words(BadInput("inputs[1]", "must not be empty"))
    assert (error.field, error.message) == ("input_data[1]", "input_data[1]: must not be empty")
    assert in_the_tutorials_words(Overloaded("full")).message == "full"
