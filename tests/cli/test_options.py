"""cli/options.py: which model a command means."""

from pathlib import Path

import pytest

from tests.cli.command import Capture, refusal_of, slipway
from tests.tiny_artifact import publish_tiny


def test_predict_asks_which_model_when_there_are_several(tmp_path: Path, capsys: Capture) -> None:
    assert slipway("predict", "good", repository=tmp_path) == 2
    assert "no models in" in capsys.readouterr().err
    publish_tiny(tmp_path, "one")
    publish_tiny(tmp_path, "two")
    assert slipway("predict", "good", repository=tmp_path) == 2
    assert "--model: one, two" in capsys.readouterr().err
    assert slipway("predict", "good", "--model", "two", repository=tmp_path) == 0


def test_the_repository_can_come_from_the_environment(
    published: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIPWAY_REPOSITORY", str(published))
    assert slipway("predict", "good") == 0
    assert slipway("models", "list", "--json") == 0
    assert "positive" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["models", "show", "a:latest"], "NAME@ALIAS"),
        (["models", "show", "a:"], "NAME@ALIAS"),
        (["models", "show", "@b"], "NAME@ALIAS"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(capsys: Capture, arguments: list[str], said: str) -> None:
    assert said in refusal_of(capsys, *arguments)
