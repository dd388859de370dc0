"""What finished runs came to: a summary in each run's folder, listed and compared by `slipway runs`. No torch here.

runs/<model>/<key>/summary.json
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from artifact.files import write_atomically
from artifact.manifest import Estimate
from training.errors import TrainingError

SUMMARY: Final = "summary.json"


class RunSummary(BaseModel):
    """One run that went through the gate. Metrics are of the test split; `version` is None if nothing was published."""

    model_config = ConfigDict(frozen=True)

    model: str
    finished: datetime
    recipe: dict[str, Any]
    data_fingerprint: str
    weights_digest: str
    steps: int
    seconds: float
    metrics: dict[str, Estimate]
    version: int | None = None
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """A summary and the folder it lies in. `name` is how a person refers to it."""

    folder: Path
    summary: RunSummary

    @property
    def name(self) -> str:
        """Model and folder, as in `sentiment/0d46a6ed`."""
        return f"{self.summary.model}/{self.folder.name}"


def save_summary(folder: Path, summary: RunSummary) -> None:
    """Keep `summary` in its run's folder. Raises OSError."""
    write_atomically(folder / SUMMARY, summary.model_dump_json(indent=1).encode())


def list_runs(root: Path) -> list[Run]:
    """Every run below `root` that has a summary, the newest first. One that cannot be read is passed over."""
    return sorted(_readable(root), key=lambda run: run.summary.finished, reverse=True)


def _readable(root: Path) -> Iterator[Run]:
    for path in root.glob(f"*/*/{SUMMARY}"):
        try:
            yield Run(path.parent, RunSummary.model_validate_json(path.read_bytes()))
        except (OSError, ValidationError):
            continue


def find_runs(runs: Sequence[Run], names: Sequence[str]) -> list[Run]:
    """The runs meant by `names`: the whole name, or the beginning of the folder's. Raises TrainingError."""
    return [_find(runs, name) for name in names]


def _find(runs: Sequence[Run], name: str) -> Run:
    found = [run for run in runs if name and (run.name == name or run.folder.name.startswith(name))]
    if len(found) == 1:
        return found[0]
    raise TrainingError(f"{name!a} is {'no run' if not found else 'more than one run'}; slipway runs lists them")


def differences(runs: Sequence[Run]) -> dict[str, list[str]]:
    """What is not the same in all of `runs`: dotted name of the recipe's field, or a fact -> its value in each."""
    facts = [
        {
            **_flat(run.summary.recipe),
            "data fingerprint": run.summary.data_fingerprint[:23],
            "weights": run.summary.weights_digest[:16],
        }
        for run in runs
    ]
    names = dict.fromkeys(name for each in facts for name in each)
    values = {name: [each.get(name, "") for each in facts] for name in names}
    return {name: each for name, each in values.items() if len(set(each)) > 1}


def _flat(values: dict[str, Any], before: str = "") -> dict[str, str]:
    """Nested values under dotted names, as text."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{before}{name}.")
        else:
            flat[f"{before}{name}"] = str(value)
    return flat
