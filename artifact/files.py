"""Reading and writing files so that what was hashed is what is used, and a crash leaves no half file."""

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from artifact.manifest import FileRecord

# Large, because hashing a chunk lets other threads run, and getting back in takes up to a thread's turn each time.
_CHUNK = 8 << 20


def record(path: Path) -> FileRecord:
    """Hash and measure the file at `path`."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb", buffering=0) as file:
        buffer = memoryview(bytearray(min(_CHUNK, path.stat().st_size + 1)))
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            size += count
    return FileRecord(sha256=digest.hexdigest(), bytes=size)


def fsync(path: Path) -> None:
    """Force a file or a directory to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` in one step: a reader sees the old contents or the new, never a mixture."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    staged = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        staged.chmod(0o644)
        staged.replace(path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    fsync(path.parent)


@contextmanager
def lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock that the file at `path` stands for; it is created when missing and ends with the process.

    Raises BlockingIOError when another holds it and `wait` is false. The file is opened for writing because NFS
    grants an exclusive lock to nothing less (flock(2)).
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(handle)


def cache_dir(environ: Mapping[str, str]) -> Path:
    """SLIPWAY_CACHE_DIR, else `slipway` in XDG_CACHE_HOME, else in ~/.cache (XDG base directory specification)."""
    if own := environ.get("SLIPWAY_CACHE_DIR"):
        return Path(own).expanduser()
    home = environ.get("XDG_CACHE_HOME", "")
    # The specification: a relative path there is invalid and ignored.
    base = Path(home) if Path(home).is_absolute() else Path("~/.cache").expanduser()
    return base / "slipway"
