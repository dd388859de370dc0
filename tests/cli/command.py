"""Running the command: here, or in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.app import main

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "cli"]
_BLOCKED = (
    "import sys; sys.modules |= dict.fromkeys(sys.argv.pop(1).split(',')); from cli.app import main; sys.exit(main())"
)

Capture = pytest.CaptureFixture[str]


def slipway(*arguments: object, repository: Path | None = None) -> int:
    """Run a command in this process."""
    options = ["--repository", str(repository)] if repository else []
    return main([str(argument) for argument in (*arguments, *options)])


def start(*arguments: object, stdin: bytes | None = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a command in a process of its own."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], input=stdin, cwd=ROOT, capture_output=True, timeout=60, check=False
    )


def without(libraries: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command where `libraries`, separated by commas, are not installed."""
    return subprocess.run(
        [sys.executable, "-c", _BLOCKED, libraries, *arguments], cwd=ROOT, capture_output=True, timeout=60, check=False
    )


def refusal_of(capsys: Capture, *arguments: object) -> str:
    """The one line on stderr with which wrong usage ends, with status 2 and nothing on stdout."""
    assert slipway(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def rows(output: str | bytes) -> list[dict[str, Any]]:
    """JSON lines."""
    return [json.loads(line) for line in output.splitlines()]
