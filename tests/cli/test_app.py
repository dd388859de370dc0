"""cli/app.py: what every command has in common: help, exit statuses, and one line about what went wrong."""

import subprocess
from pathlib import Path

import pytest
import typer
from typer.cli import get_docs_for_click
from typer.main import get_command

from artifact.errors import ArtifactError
from artifact.repository import Repository
from cli.app import app
from tests.cli.command import COMMAND, ROOT, Capture, refusal_of, slipway, without


def test_help_names_every_command_and_the_exit_statuses(capsys: Capture) -> None:
    assert slipway("--help") == 0
    shown = capsys.readouterr().out
    words = ("explore", "train", "evaluate", "serve", "predict", "models", "130 interrupted")
    assert all(word in shown for word in words)


@pytest.mark.parametrize("arguments", [(), ("models",)])
def test_without_a_command_the_help_is_shown_and_it_is_wrong_usage(capsys: Capture, arguments: tuple[str, ...]) -> None:
    assert slipway(*arguments) == 2
    assert "Usage" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bogus"], "No such command 'bogus' (see slipway --help)"),
        (["predict", "--bogus", "x"], "No such option: --bogus"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(capsys: Capture, arguments: list[str], said: str) -> None:
    assert said in refusal_of(capsys, *arguments)


def test_a_failure_is_one_line_without_a_traceback(capsys: Capture, published: Path) -> None:
    assert slipway("models", "show", "sentiment:9", repository=published) == 1
    assert capsys.readouterr().err == "error: model 'sentiment' has no version 9\n"


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_debug_shows_the_traceback(capsys: Capture, published: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    if how == "environment":
        monkeypatch.setenv("SLIPWAY_DEBUG", "1")
    debug = ["--debug"] if how == "flag" else []
    assert slipway(*debug, "models", "show", "sentiment:9", repository=published) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.endswith("error: model 'sentiment' has no version 9\n")


def test_a_message_is_never_read_as_markup_nor_broken(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> list[str]:
        raise ArtifactError("pip install 'slipway[train]' " + "x" * 300 + "\nsecond")

    monkeypatch.setattr(Repository, "models", fail)
    assert slipway("models", "list") == 1
    assert capsys.readouterr().err == "error: pip install 'slipway[train]' " + "x" * 300 + " second\n"


def test_what_nobody_expected_is_one_line_too(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> list[str]:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(Repository, "models", fail)
    assert slipway("models", "list") == 1
    assert capsys.readouterr().err == "error: unexpected ZeroDivisionError: by zero (SLIPWAY_DEBUG=1 shows where)\n"


def test_an_interrupted_command_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Repository, "models", interrupt)
    assert slipway("models", "list") == 130


@pytest.mark.parametrize("command", ["train", "serve"])
def test_a_status_a_command_returns_is_the_status(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    pytest.importorskip("training.pipeline" if command == "train" else "service.supervisor")
    target = "training.pipeline.run_cli" if command == "train" else "service.supervisor.serve"
    monkeypatch.setattr(target, lambda *_, **__: 3)
    assert slipway(command, *(["sentiment"] if command == "train" else [])) == 3


def test_help_needs_neither_half() -> None:
    missing = "torch,transformers,numpy,onnxruntime,tokenizers,fastapi,uvicorn"
    for arguments in (["--help"], ["serve", "--help"], ["train", "--help"], ["models", "list", "--help"]):
        assert without(missing, *arguments).returncode == 0, arguments


def test_a_reader_that_leaves_ends_the_command_quietly(published: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "predict", "--repository", str(published)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(b"good\n" * 5)
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        process.stdin.write(b"good\n" * 50)
        process.stdin.close()
        assert process.wait(30) == 1
        assert process.stderr.read() == b""


def test_the_reference_page_is_current() -> None:
    command = get_command(app)
    page = get_docs_for_click(obj=command, ctx=typer.Context(command), name="slipway").strip() + "\n"
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == page, (
        "write it again: .venv/bin/python -m typer cli.app utils docs --name slipway --output docs/cli.md"
    )
