"""How many cores this process may really use: affinity, cpuset and cgroup quota, not the host's count."""

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """Whole cores to plan for, at least one: the smaller of the CPU affinity and the cgroup's quota, rounded up."""
    cores = len(os.sched_getaffinity(0))
    quota = cpu_quota(cgroup)
    return cores if quota is None else max(1, min(cores, int(-(-quota // 1))))


def cpu_quota(cgroup: Path = _CGROUP) -> float | None:
    """Cores granted by the cgroup (v2 `cpu.max`, else v1 `cpu.cfs_quota_us`), or None when there is no quota.

    Source: the kernel's admin-guide/cgroup-v2 and scheduler/sched-bwc.
    """
    try:
        quota, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return _quota_v1(cgroup / "cpu")
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        period = int((folder / "cpu.cfs_period_us").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 and period > 0 else None
