"""Results of finished steps, kept so that a run that was killed goes on where it was.

A result is valid for the key it was stored under, a hash of all that went into the step; under another key it is as
if it were not there. Written atomically, so a step either is finished or is not.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from artifact.files import write_atomically
from training.disk import disk_errors
from training.errors import TrainingError

T = TypeVar("T")


def key_of(*parts: object) -> str:
    """A hash of `parts`, which must be JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def source_key(*packages: str, root: Path) -> str:
    """A hash of the Python source of `packages` under `root`: a verdict is only as good as the code that gave it."""
    hasher = hashlib.sha256()
    for path in sorted(path for package in packages for path in (root / package).rglob("*.py")):
        hasher.update(f"{path.relative_to(root).as_posix()}\0".encode())
        hasher.update(hashlib.sha256(path.read_bytes()).digest())
    return hasher.hexdigest()


def code_key() -> str:
    """`source_key` of what prepares, trains and judges."""
    return source_key("artifact", "inference", "training", root=Path(__file__).resolve().parent.parent)


class Steps:
    """The step results in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, name: str, key: str, kind: type[T]) -> T | None:
        """The result stored under `name` and `key`; None when there is none, or none that can be read."""
        try:
            stored = json.loads((self._folder / f"{name}.json").read_bytes())
            if stored["key"] != key:
                return None
            return TypeAdapter(kind).validate_python(stored["result"])
        except (OSError, ValueError, KeyError, TypeError, ValidationError):
            return None

    def save(self, name: str, key: str, kind: type[T], result: T) -> T:
        """Keep `result` and return it. Raises TrainingError when the disk refuses."""
        content = {"key": key, "result": TypeAdapter(kind).dump_python(result, mode="json")}
        self._write(f"{name}.json", json.dumps(content, indent=1).encode())
        return result

    def load_array(self, name: str, key: str) -> NDArray[Any] | None:
        """An array stored with `save_array`, or None."""
        shape = self.load(name, key, list[int])
        try:
            array = None if shape is None else np.load(self._folder / f"{name}.npy", allow_pickle=False)
        except (OSError, ValueError):
            return None
        return array if array is not None and list(array.shape) == shape else None

    def save_array(self, name: str, key: str, array: NDArray[Any]) -> NDArray[Any]:
        """Keep `array` and return it: first the values, then the note that makes them valid.

        Raises TrainingError when the disk refuses.
        """
        partial = self._folder / f".{name}.npy"
        with self._writing(f"{name}.npy"):
            (self._folder / f"{name}.json").unlink(missing_ok=True)
            with partial.open("wb") as file:
                np.save(file, array, allow_pickle=False)
            partial.replace(self._folder / f"{name}.npy")
        self.save(name, key, list[int], list(array.shape))
        return array

    def _write(self, name: str, content: bytes) -> None:
        with self._writing(name):
            write_atomically(self._folder / name, content)

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        """The folder is there; what the disk refuses is said with the file's name."""
        with disk_errors(self._folder / name):
            self._folder.mkdir(parents=True, exist_ok=True)
            yield


@contextmanager
def only_user(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process. Raises TrainingError when another run holds it; a killed one holds nothing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise TrainingError(f"{folder}: {error.strerror or error}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise TrainingError(f"another run is using {folder}; wait for it or give another --run-dir") from error
        yield
    finally:
        os.close(handle)
