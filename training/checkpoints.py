"""The Trainer's checkpoints in a run directory, and the marker of one that is whole."""

import logging
import shutil
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)
_COMPLETE: Final = "slipway-complete"


def mark_complete(checkpoint: Path) -> None:
    """Say that all of `checkpoint` is on disk."""
    (checkpoint / _COMPLETE).touch()


def last_complete_checkpoint(run_dir: Path) -> Path | None:
    """The newest checkpoint with a marker; those without are half-written, and are removed."""
    complete = None
    for checkpoint in checkpoints_in(run_dir):
        if (checkpoint / _COMPLETE).is_file():
            complete = checkpoint
        else:
            _log.warning("%s was not finished when its run ended; it is dropped", checkpoint)
            shutil.rmtree(checkpoint)
    return complete


def checkpoints_in(run_dir: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    found = [path for path in run_dir.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The optimizer step that a checkpoint folder is named after."""
    return int(checkpoint.name.removeprefix("checkpoint-"))
