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
_FULL_SENTENCE: Final = re.compile(
    r"no space left on device|file too large|quota exceeded|disk is full|\d+ requested and \d+ written", re.IGNORECASE
)
# Said of a full disk, and of a broken or vanished one too.
_PERHAPS: Final = re.compile(r"disk i/o error|unexpected pos \d+|iostream error", re.IGNORECASE)


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
    """Whether a disk that took no more is what `error` comes from, as far as can be told."""
    return any(
        (isinstance(each, OSError) and each.errno in _FULL)
        or _FULL_SENTENCE.search(str(each))
        or _PERHAPS.search(str(each))
        for each in _causes(error)
    )


def _refusal(error: Exception) -> OSError | None:
    if isinstance(error, OSError) and error.strerror:
        return error
    if is_full_disk(error):
        sure = any(_FULL_SENTENCE.search(str(each)) for each in _causes(error))
        full = OSError(errno.ENOSPC, "cannot be written: " + ("the disk is full" if sure else "is the disk full?"))
        full.__cause__ = error
        return full
    return error if isinstance(error, OSError) else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    each: BaseException | None = error
    while each is not None:
        yield each
        each = each.__cause__ or each.__context__
