"""CPU requests and limits as a kubelet sets them: a control group for each pod.

A test machine has fewer cores than the nodes that would hold these pods. All limits and requests are therefore made
smaller by the same factor, so that every pod of the largest moment of a rollout, a surge included, can have its limit
at once, with room for the client and the proxy. That is what a scheduler guarantees: a starting pod takes the time of
no serving one. What is served is then slower, the capacity that is measured with it.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

CGROUPS: Final = Path("/sys/fs/cgroup")
ROOM_FOR_CLIENT_CORES: Final = 0.5
# Shorter than the kubelet's 0.1 s: a slower core is meant, not one that pauses for long.
PERIOD_US: Final = 10_000
# $0 is the group, $1 where a container would see it: the service plans its threads by what it finds there.
_ENTER: Final = 'echo $$ >"$0/cgroup.procs" && mount --bind "$0" "$1" && shift && exec "$@"'


@dataclass(frozen=True)
class CpuGroup:
    """The control group of one pod."""

    folder: Path
    seen_at: Path

    @classmethod
    def make(cls, name: str, limit: float, request: float, root: Path = CGROUPS) -> Self:
        """A group of `limit` cores, and a weight that follows `request`. Raises OSError where that is not allowed."""
        unified = (root / "cgroup.controllers").exists()
        if unified:
            (root / "cgroup.subtree_control").write_text("+cpu", encoding="ascii")
        seen_at = root if unified else root / "cpu"
        folder = seen_at / name
        folder.mkdir(exist_ok=True)
        quota = round(limit * PERIOD_US)
        # https://kubernetes.io/docs/concepts/architecture/cgroups/: shares are 1024 a core, weights 100 for 2.5 of them
        settings = (
            {"cpu.max": f"{quota} {PERIOD_US}", "cpu.weight": max(1, round(request * 39))}
            if unified
            else {
                "cpu.cfs_period_us": PERIOD_US,
                "cpu.cfs_quota_us": quota,
                "cpu.shares": max(2, round(request * 1024)),
            }
        )
        for file, value in settings.items():
            (folder / file).write_text(str(value), encoding="ascii")
        return cls(folder, seen_at)

    def command(self, words: Sequence[str]) -> list[str]:
        """`words`, started inside the group, which it sees as its own; the process keeps its number."""
        return ["unshare", "--mount", "sh", "-c", _ENTER, str(self.folder), str(self.seen_at), *words]

    def remove(self) -> None:
        """Once nothing runs in it."""
        for _ in range(20):
            try:
                self.folder.rmdir()
            except OSError:  # the kernel has not buried the last process yet
                time.sleep(0.01)
            else:
                return


def allowed(root: Path = CGROUPS) -> bool:
    """Whether groups can be made here: as root, where the file system of control groups is writable."""
    if os.geteuid() != 0:
        return False
    try:
        CpuGroup.make("slipway-try", 0.5, 0.5, root).remove()
    except OSError:
        return False
    return True


def scale_for(pods: int, limit: float, cores: float) -> float:
    """By which factor limits shrink, so that `pods` of `limit` cores fit into `cores`; 1 where they do."""
    return min(1.0, (cores - ROOM_FOR_CLIENT_CORES) / (pods * limit))
