from pathlib import Path

import pytest

from service.config import PREFIX, Settings, bounds, load_settings
from service.errors import WrongSettings


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"{PREFIX}{name.upper()}", raising=False)


def test_defaults_are_those_the_issue_names() -> None:
    settings = load_settings()
    assert settings.port == 8000
    assert settings.max_inputs_per_request == 128
    assert settings.max_body_bytes == 4 * 1024 * 1024
    assert (settings.drain_delay_seconds, settings.drain_timeout_seconds) == (5.0, 30.0)


def test_environment_sets_and_flags_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_PORT", "9000")
    monkeypatch.setenv("SLIPWAY_REPOSITORY", "/somewhere")
    settings = load_settings({"port": 9001, "host": None})
    assert (settings.port, settings.repository, settings.host) == (9001, Path("/somewhere"), "127.0.0.1")


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_PORT", "")
    assert load_settings().port == 8000


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("PORT", "tcp://10.0.0.1:80", ["SLIPWAY_PORT", "whole number", "65535", "8000"]),
        ("PORT", "70000", ["SLIPWAY_PORT", "65535"]),
        ("LOG_FORMAT", "xml", ["SLIPWAY_LOG_FORMAT", "json, console"]),
        ("DRAIN_DELAY_SECONDS", "-1", ["SLIPWAY_DRAIN_DELAY_SECONDS", "0"]),
        ("DEFAULT_TIMEOUT_SECONDS", "nan", ["SLIPWAY_DEFAULT_TIMEOUT_SECONDS", "finite"]),
        ("MAX_QUEUE_SIZE", "100", ["SLIPWAY_MAX_QUEUE_SIZE", "SLIPWAY_MAX_INPUTS_PER_REQUEST", "raise"]),
        ("MAX_TIMEOUT_SECONDS", "1", ["SLIPWAY_MAX_TIMEOUT_SECONDS", "SLIPWAY_DEFAULT_TIMEOUT_SECONDS"]),
    ],
)
def test_a_wrong_value_says_what_to_change(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: list[str]
) -> None:
    monkeypatch.setenv(PREFIX + variable, value)
    monkeypatch.setenv("SLIPWAY_HOST", "unrelated.example")
    with pytest.raises(WrongSettings) as caught:
        load_settings()
    for word in words:
        assert word in caught.value.message
    assert "unrelated" not in caught.value.message
    assert "validation error" not in caught.value.message
    assert "\n" not in caught.value.message


def test_a_wrong_flag_is_named_as_a_flag() -> None:
    with pytest.raises(WrongSettings, match="--port is '-1'"):
        load_settings({"port": -1})


def test_two_wrong_values_are_both_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_PORT", "x")
    monkeypatch.setenv("SLIPWAY_WORKERS", "0")
    with pytest.raises(WrongSettings, match=r"SLIPWAY_PORT.*SLIPWAY_WORKERS"):
        load_settings()


def test_every_setting_has_a_description_and_bounds_in_words() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
        assert bounds(name), name
