"""A folder of finished runs, without any training."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from artifact.manifest import Estimate
from training.runs import RunSummary, save_summary


def keep(root: Path, key: str, *, day: int = 1, version: int | None = 1, **training: Any) -> None:
    """Leave a finished run in `root`."""
    folder = root / "tiny" / key
    folder.mkdir(parents=True)
    recipe = {"name": "tiny", "training": {"learning_rate": 1e-3, "seed": 13} | training}
    summary = RunSummary(
        model="tiny",
        finished=datetime(2026, 1, day, tzinfo=UTC),
        recipe=recipe,
        data_fingerprint="sha256:" + "1" * 64,
        weights_digest=key * 8,
        steps=10,
        seconds=2.0,
        metrics={"accuracy": Estimate(value=0.8, low=0.7, high=0.9)},
        version=version,
    )
    save_summary(folder, summary)


def keep_some(root: Path) -> None:
    """Three finished runs, a broken and an unfinished one."""
    keep(root, "aaaa1111")
    keep(root, "aaaa2222", day=3, version=None, learning_rate=2e-3)
    keep(root, "bbbb3333", day=2, seed=14)
    (root / "tiny" / "broken").mkdir()
    (root / "tiny" / "broken" / "summary.json").write_text("{")
    (root / "tiny" / "unfinished").mkdir()
