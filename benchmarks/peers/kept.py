"""What was measured of each peer, a file each, so that a run which was ended goes on with `--resume`."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Kept:
    """Measurements in `folder`. Only those made under the same `conditions` are given back."""

    folder: Path
    conditions: str

    @classmethod
    def under(cls, folder: Path, conditions: Mapping[str, object]) -> "Kept":
        """For what decides whether two measurements belong in one table: plan, artifact, texts, machine."""
        described = json.dumps(conditions, sort_keys=True, default=str)
        return cls(folder, hashlib.sha256(described.encode()).hexdigest())

    def _path(self, peer: str) -> Path:
        return self.folder / f"{peer}.json"

    def read(self, peer: str) -> tuple[list[dict[str, Any]], dict[str, Any]] | None:
        """Slipway's runs beside the peer and the peer's figures, or None."""
        try:
            found = json.loads(self._path(peer).read_bytes())
            if found["conditions"] != self.conditions:
                return None
            return list(found["runs"]), dict(found["figures"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, peer: str, runs: list[dict[str, Any]], figures: Mapping[str, Any]) -> None:
        """Keep both; a file is whole or not there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        half = self._path(peer).with_suffix(".half")
        half.write_text(json.dumps({"conditions": self.conditions, "runs": runs, "figures": figures}), encoding="utf-8")
        half.replace(self._path(peer))

    def forget(self) -> None:
        """Remove what earlier runs kept."""
        for path in self.folder.glob("*.json"):
            path.unlink()
