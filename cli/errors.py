"""What the command line itself refuses, and the status that a command ends with.

SlipwayError                 (artifact/errors.py)
├── WrongUsage           exit 2  the command line, or this installation, cannot do what was asked
└── ServerFailed         exit 1  the server behind --url cannot be reached, or refuses the whole request
"""

from collections.abc import Iterator
from contextlib import contextmanager

from artifact.errors import SlipwayError

FAILED, WRONG_USAGE = 1, 2


class WrongUsage(SlipwayError):
    """The command line, or this installation, cannot do what was asked."""

    code = "wrong_usage"
    exit_status = WRONG_USAGE


class ServerFailed(SlipwayError):
    """The server behind `--url` cannot be reached, or refuses the whole request."""

    code = "server_failed"


@contextmanager
def needs(command: str, extra: str) -> Iterator[None]:
    """Turn a library that is not installed into the one line that says how to install it. Raises WrongUsage."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "a library").partition(".")[0]
        raise WrongUsage(
            f"slipway {command} needs {missing}, which is not installed here: pip install 'slipway[{extra}]'"
        ) from error
