"""What a refused caller is told."""

import pytest

from inference.errors import BadInput, DeadlineExceeded, InferenceError, InputTooLong, NotReady, Overloaded


def test_bad_input_names_its_field_and_the_reason() -> None:
    error = BadInput("inputs[3]", "must be a string")
    assert (error.field, error.message, error.status) == ("inputs[3]", "inputs[3]: must be a string", 422)


def test_too_long_says_by_how_much_and_what_to_do() -> None:
    error = InputTooLong("inputs[0]", 600, 512)
    assert "600 tokens" in error.message
    assert "512" in error.message
    assert "truncate" in error.message
    assert error.field == "inputs[0]"


def test_too_long_can_be_said_of_another_field() -> None:
    first = InputTooLong("inputs[0]", 600, 512)
    second = first.at("inputs[2]")
    assert (second.field, second.message) == ("inputs[2]", first.message.replace("inputs[0]", "inputs[2]"))
    assert first.field == "inputs[0]"


@pytest.mark.parametrize("kind", [Overloaded, NotReady, DeadlineExceeded])
def test_what_passes_says_when_to_come_back(kind: type[Overloaded]) -> None:
    assert kind("busy").retry_after_seconds == 1.0
    assert kind("busy", retry_after_seconds=2.5).retry_after_seconds == 2.5


def test_what_is_final_does_not() -> None:
    assert InferenceError("no").retry_after_seconds is None
