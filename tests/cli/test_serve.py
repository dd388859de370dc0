"""cli/serve.py: flags become settings."""

from typing import Any

import pytest

from tests.cli.command import Capture, refusal_of, slipway


def test_flags_of_serve_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("service.server")
    seen = []

    def run(settings: Any) -> int:
        seen.append(settings)
        return 0

    monkeypatch.setattr("service.supervisor.serve", run)
    monkeypatch.setenv("SLIPWAY_PORT", "1111")
    monkeypatch.setenv("SLIPWAY_HOST", "0.0.0.0")
    assert slipway("serve", "--port", 2222) == 0
    assert (seen[0].port, seen[0].host) == (2222, "0.0.0.0")


def test_a_wrong_setting_stops_the_start_with_status_2(capsys: Capture) -> None:
    pytest.importorskip("service.server")
    assert slipway("serve", "--port", 99999) == 2
    assert "--port" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--port", "many"], "--port"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(capsys: Capture, arguments: list[str], said: str) -> None:
    assert said in refusal_of(capsys, *arguments)
