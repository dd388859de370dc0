"""What `make run` does before it becomes the service, with a `slipway` that only writes down what it was asked."""

import socket
from pathlib import Path

import pytest

from tools import run_demo


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file into which the stand-in writes its arguments; its exit status is in `status` beside it."""
    notes, script = tmp_path / "asked", tmp_path / "slipway"
    (tmp_path / "status").write_text("0")
    script.write_text(f'#!/bin/sh\necho "$@" >> {notes}\nexit $(cat {tmp_path}/status)\n')
    script.chmod(0o755)
    monkeypatch.setattr(run_demo, "SLIPWAY", script)
    return notes


def test_training_is_followed_by_measuring_what_runs_it_fastest(asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_demo, "greet_from_a_grandchild", lambda port: None)
    monkeypatch.setattr(run_demo, "serve", lambda repository, port: 0)
    repository = asked.parent / "models"
    assert run_demo.main(["--repository", str(repository), "--port", "0"]) == 0
    trained, measured = asked.read_text().splitlines()
    assert trained == f"train sentiment --repository {repository}"
    assert measured.startswith("bench sentiment --engines")
    assert measured.endswith(f"--repository {repository}")


def test_a_training_that_failed_is_the_end(asked: Path) -> None:
    (asked.parent / "status").write_text("3")
    assert run_demo.main(["--repository", str(asked.parent / "models"), "--port", "0"]) == 3
    assert len(asked.read_text().splitlines()) == 1


def test_a_port_in_use_is_said_before_anything_is_trained(asked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind((run_demo.HOST, 0))
        taken.listen()
        assert run_demo.main(["--port", str(taken.getsockname()[1])]) == 1
    assert "is in use" in "".join(capsys.readouterr())
    assert not asked.exists()
