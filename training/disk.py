"""What a full disk does to a command, as one sentence. Libraries that write say it each in words of their own."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from artifact.errors import SlipwayError
from training.errors import TrainingError

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# safetensors and torch tell no error number, numpy and SQLite (which Optuna writes to) have sentences of their own.
_SENTENCE: Final = re.compile(
    r"no space left on device|file too large|quota exceeded|disk is full|disk i/o error"
    r"|unexpected pos \d+|iostream error|\d+ requested and \d+ written",
    re.IGNORECASE,
)


@contextmanager
def disk_errors(place: object, kind: type[TrainingError] = TrainingError) -> Iterator[None]:
    """What the disk refuses inside becomes one `kind` that names the file, or `place`; an OSError is its cause."""
    try:
        yield
    except SlipwayError:
        raise
    except Exception as error:
        refused = _refusal(error)
        if refused is None:
            raise
        raise kind(f"{refused.filename or place}: {refused.strerror or refused}") from refused


def is_full_disk(error: BaseException) -> bool:
    """Whether that is what `error` comes from, whatever it is."""
    return any(
        (isinstance(each, OSError) and each.errno in _FULL) or _SENTENCE.search(str(each)) for each in _causes(error)
    )


def _refusal(error: Exception) -> OSError | None:
    if isinstance(error, OSError) and error.strerror:
        return error
    if is_full_disk(error):
        full = OSError(errno.ENOSPC, "cannot be written: the disk is full")
        full.__cause__ = error
        return full
    return error if isinstance(error, OSError) else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    each: BaseException | None = error
    while each is not None:
        yield each
        each = each.__cause__ or each.__context__
